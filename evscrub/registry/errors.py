# SPDX-License-Identifier: Apache-2.0
"""Classify database errors by their codes: which to retry, and what an operator should do.

Messages change with releases and with the server's language; codes do not. Numbers are from the
error references of MySQL, MariaDB, Galera and ProxySQL, states from Appendix A of PostgreSQL's
manual. Pure.
"""

import enum
import sqlite3
from typing import Any

from evscrub.telemetry.redact import redact


class Sort(enum.Enum):
    """Class of an error, by whether to retry the transaction that it ended."""

    CONFLICT = "conflict"  #: conflict with another transaction: retry
    LOST = "lost"  #: this connection is unusable: retry on a new one
    OTHER = "other"  #: a retry would fail again


_MYSQL_CONFLICTS = frozenset(
    {
        1020,  # record changed since it was read (MariaDB's snapshot isolation)
        1180,  # error during COMMIT: Galera's certification failed
        1205,  # lock wait timeout
        1213,  # deadlock, or a certification conflict
        1317,  # query interrupted: a cluster aborted it, or somebody killed it
        1412,  # table definition changed, retry
        1637,  # too many concurrent transactions
        3101,  # a plugin rolled back at COMMIT: a certification conflict in Group Replication
    }
)
_MYSQL_READ_ONLY = frozenset(
    {
        1290,  # --read-only or --super-read-only: a primary that became a replica
        1792,  # the transaction is read-only
        1836,  # running in read-only mode
    }
)
_MYSQL_NO_QUORUM = frozenset(
    {
        1047,  # WSREP has not yet prepared the node
        3100,  # a replication hook failed: no quorum in Group Replication
    }
)
_MYSQL_LOST = (
    _MYSQL_READ_ONLY
    | _MYSQL_NO_QUORUM
    | frozenset(
        {
            1040,  # too many connections
            1053,  # server shutdown in progress
            1152,  # aborted connection
            1158,  # network read error
            1159,  # network read timeout
            1160,  # network write error
            1161,  # network write timeout
            1184,  # aborted connection, unauthenticated
            1203,  # too many connections of this user
            1226,  # this user's limit of a resource is reached
            1927,  # connection was killed (MariaDB)
            2002,  # cannot connect through a socket
            2003,  # cannot connect
            2005,  # unknown host: a name service that is away
            2006,  # server has gone away
            2012,  # error in the handshake
            2013,  # lost connection during a query, or its time ran out
            2014,  # commands out of sync
            2045,  # shared memory error
            2055,  # lost connection, with the system's error
            3024,  # the statement's time ran out; mysqlconnector says so of its own time-outs
            3032,  # server is in offline mode
            3168,  # server is not available
            3169,  # session was killed
            4031,  # disconnected because of inactivity
            9001,  # ProxySQL has no backend that answers
        }
    )
)
_MYSQL_NO_TABLE = frozenset({1049, 1054, 1146})
_MYSQL_REFUSED = frozenset({1044, 1045, 1142, 1143, 1698})

_POSTGRESQL_CONFLICTS = frozenset(
    {
        "40001",  # serialization failure
        "40003",  # statement completion unknown
        "40P01",  # deadlock
        "55P03",  # lock not available within lock_timeout
        "57014",  # query canceled, by statement_timeout or by somebody
    }
)
_POSTGRESQL_READ_ONLY = frozenset({"25006"})
_POSTGRESQL_LOST = _POSTGRESQL_READ_ONLY | frozenset(
    {
        "25P03",  # idle in a transaction for too long
        "25P04",  # transaction took too long
        "53300",  # too many connections
        "57P01",  # shut down by an administrator
        "57P02",  # shut down by a crash
        "57P03",  # cannot connect now: starting up or recovering
        "57P05",  # idle for too long
    }
)
_POSTGRESQL_NO_TABLE = frozenset({"3D000", "42P01", "42703"})
_POSTGRESQL_REFUSED = frozenset({"28000", "28P01", "42501"})

_SQLITE_CONFLICTS = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE_PRIMARY = 0xFF  # mask of the primary code; higher bits are details


def code_of(error: BaseException) -> int | str | None:
    """Return the driver's code of an error, or None if it has none.

    :param error: the driver's exception, or one of SQLAlchemy or oslo.db that wraps it.
    :returns: a number for MySQL and SQLite, the SQLSTATE for PostgreSQL.
    """
    cause = driver_error(error)
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        return None if code is None else code & _SQLITE_PRIMARY
    number = _number(cause)
    if number is not None:  # MySQL's drivers have both; its states are too coarse
        return number
    state = getattr(cause, "pgcode", None) or getattr(cause, "sqlstate", None)
    return state if isinstance(state, str) else None


def sort(error: BaseException, family: str) -> Sort:
    """Return the class of an error.

    :param error: the driver's exception, or one of SQLAlchemy or oslo.db that wraps it.
    :param family: ``mysql``, ``postgresql`` or ``sqlite``.
    """
    code = code_of(error)
    if family == "postgresql":
        # libpq's own errors have no state: it could not connect, or lost the connection.
        kinds = {kind.__name__ for kind in type(driver_error(error)).__mro__}
        own = code is None and "OperationalError" in kinds
        if own or code in _POSTGRESQL_LOST or str(code).startswith("08"):
            return Sort.LOST
        return Sort.CONFLICT if code in _POSTGRESQL_CONFLICTS else Sort.OTHER
    if family == "sqlite":
        return Sort.CONFLICT if code in _SQLITE_CONFLICTS else Sort.OTHER
    if code in _MYSQL_LOST:
        return Sort.LOST
    return Sort.CONFLICT if code in _MYSQL_CONFLICTS else Sort.OTHER


def is_read_only(error: BaseException) -> bool:
    """Return whether a server rejected a write because it is read-only."""
    return code_of(error) in _MYSQL_READ_ONLY | _POSTGRESQL_READ_ONLY


def reason(error: BaseException) -> str:
    """Return the message of the database or its driver in one line, without credentials or SQL."""
    cause = driver_error(error)
    said = " ".join(str(part) for part in cause.args)
    return redact(" ".join(said.split())) or type(cause).__name__


def advice(error: BaseException) -> str:
    """Return what an operator should do about an error."""
    code = code_of(error)
    if code in _MYSQL_NO_QUORUM:
        return (
            "this node has no quorum in its cluster, or is still joining: check the cluster, or"
            " set [database] connection to a node that is in it"
        )
    if is_read_only(error):
        return "this server is read-only: set [database] connection to the primary"
    if code in _MYSQL_NO_TABLE | _POSTGRESQL_NO_TABLE or "no such table" in reason(error):
        return "check [database] connection, and that Glance has created its tables there"
    if code in _MYSQL_REFUSED | _POSTGRESQL_REFUSED:
        return "check the user, the password and the database's name in [database] connection"
    return "check that the database runs, and [database] connection"


def explain(error: BaseException) -> str:
    """Return what happened and what to do, in one line."""
    return f"{reason(error)}; {advice(error)}"


def driver_error(error: BaseException) -> BaseException:
    """Return the driver's exception that SQLAlchemy's or oslo.db's one wraps."""
    while True:
        inner = getattr(error, "inner_exception", None) or getattr(error, "orig", None)
        if not isinstance(inner, BaseException):
            return error
        error = inner


def _number(cause: BaseException) -> int | None:
    """Return MySQL's error number: an attribute in mysqlconnector, an argument in the others."""
    arguments: tuple[Any, ...] = cause.args
    for value in (getattr(cause, "errno", None), *arguments[:1]):
        if isinstance(value, int) and value > 0:
            return value
    return None
