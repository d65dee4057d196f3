# SPDX-License-Identifier: Apache-2.0
"""Set timeouts for the database drivers that evscrub supports.

A frozen server, or a network that drops packets, neither answers nor closes a connection. Without
timeouts a driver waits for it forever.
"""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from evscrub.registry import watchdog

#: Timeout for connecting. PyMySQL's default, and longer than any healthy network takes.
CONNECT_SECONDS = 10
#: Timeout for the answer to a statement. The slowest statements of evscrub scan a part of the
#: registry and take a few seconds on a million images. MySQL waits up to 50 s for a lock
#: (innodb_lock_wait_timeout), as a restore does.
ANSWER_SECONDS = 60
_MIN_ANSWER_SECONDS = 5


def answer_seconds(lease_seconds: float) -> int:
    """Return a timeout for answers within which no claim expires.

    :param lease_seconds: ``[scrubber] claim_timeout``.
    :returns: seconds, from 5 to :data:`ANSWER_SECONDS`.
    """
    return int(min(ANSWER_SECONDS, max(_MIN_ANSWER_SECONDS, lease_seconds / 2)))


@dataclass(frozen=True, slots=True)
class Driver:
    """Timeout options of a database driver that evscrub supports.

    :param connect: names of the option for connecting; the first name is used to set it.
    :param answer: names of the options for reading and writing.
    :param watched: connects with a bound for each answer, for a driver that has no option for it.
    """

    connect: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    watched: Callable[..., Any] | None = None


#: By SQLAlchemy's names of dialect and driver. SQLite's driver waits at most 5 s for a lock.
_DRIVERS = {
    ("mysql", "pymysql"): Driver(("connect_timeout",), ("read_timeout", "write_timeout")),
    ("mysql", "mysqldb"): Driver(("connect_timeout",), ("read_timeout", "write_timeout")),
    ("mysql", "mysqlconnector"): Driver(
        ("connection_timeout", "connect_timeout"), ("read_timeout", "write_timeout")
    ),
    ("postgresql", "psycopg2"): Driver(("connect_timeout",), watched=watchdog.connect_psycopg2),
    ("postgresql", "psycopg"): Driver(("connect_timeout",), watched=watchdog.connect_psycopg),
    ("sqlite", "pysqlite"): Driver(),
}
_SPELLINGS = "mysql+pymysql://, postgresql+psycopg2:// or sqlite://"


def read_url(connection: str) -> sa.URL:
    """Parse a database URL.

    The dialect ``mariadb`` is replaced by ``mysql`` with the same driver: SQLAlchemy only adds a
    check of the server to it, and oslo.db and Glance look for the name ``mysql``. ``postgresql``
    without a driver means psycopg2, as in SQLAlchemy 2.0, whatever a later release makes of it.

    :raises ValueError: evscrub does not support this database or driver.
    :raises sa.exc.ArgumentError: it is not a URL.
    """
    url = sa.make_url(connection)
    family, plus, driver = url.drivername.partition("+")
    if family == "mariadb":
        url = url.set(drivername=f"mysql{plus}{driver}")
    elif url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg2")
    _driver_of(url, connection.partition("://")[0])
    return url


def driver_of(url: sa.URL) -> Driver:
    """Return the timeout options of a URL's driver.

    :raises ValueError: evscrub does not support the driver.
    """
    return _driver_of(url, url.drivername)


def _driver_of(url: sa.URL, written: str) -> Driver:
    """Return the timeout options of a URL's driver.

    :param written: the scheme as the operator wrote it, for the message.
    :raises ValueError: evscrub does not support the driver.
    """
    try:
        dialect = url.get_dialect()
    except sa.exc.NoSuchModuleError:
        dialect = None
    known = _DRIVERS.get((dialect.name, dialect.driver)) if dialect is not None else None
    if known is None or dialect is None or dialect.is_async:
        raise ValueError(
            f"[database] connection begins with {written}://, which evscrub does not support:"
            f" use {_SPELLINGS}; set it in evscrub.conf if Glance itself uses another driver"
        )
    return known


def limit(engine: sa.Engine, seconds: int) -> None:
    """Set timeouts for new connections of an engine, except those that its URL sets.

    :param seconds: timeout for the answer to a statement, at least 1.
    """
    driver = driver_of(engine.url)

    def connect(
        _dialect: object,
        _record: object,
        arguments: list[Any],
        options: MutableMapping[str, Any],
    ) -> object:
        if driver.connect and not any(name in options for name in driver.connect):
            options[driver.connect[0]] = CONNECT_SECONDS
        for name in driver.answer:
            options.setdefault(name, seconds)
        # With None SQLAlchemy connects by itself.
        return driver.watched(seconds, *arguments, **options) if driver.watched else None

    sa.event.listen(engine, "do_connect", connect)
