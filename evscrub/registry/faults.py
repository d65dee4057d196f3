# SPDX-License-Identifier: Apache-2.0
"""Tell errors that rows cause from those of a database that is away. Pure."""

from oslo_db import exception as db_exception

#: What rows raise while they are read or decided about: dates out of range, text that does not
#: decode, a value of another type than its column's.
_OF_VALUES = (ArithmeticError, LookupError, TypeError, ValueError)
_OF_DATA = (
    db_exception.DBConstraintError,
    db_exception.DBDataError,
    db_exception.DBDuplicateEntry,
    db_exception.DBReferenceError,
)
#: MySQL and MariaDB: values out of range, malformed or too long, a constraint, a trigger's SIGNAL.
_MYSQL_CODES = frozenset({1264, 1292, 1366, 1406, 1411, 1451, 1452, 1525, 1644, 3819, 4025})
#: PostgreSQL's classes of data exceptions and violated constraints, and RAISE in a trigger.
_SQL_STATES = ("22", "23", "P0001")


def is_of_rows(error: Exception) -> bool:
    """Return whether an error tells of the rows that were asked for, and not of the database.

    In doubt it is the database's: that is asked again.

    :param error: as oslo.db raised it, or any other.
    """
    if isinstance(error, _OF_DATA):
        return True
    cause: object = error
    for name in ("inner_exception", "orig"):
        cause = getattr(cause, name, None) or cause
    if isinstance(cause, _OF_VALUES):
        return True
    code = cause.args[0] if isinstance(cause, Exception) and cause.args else None
    state = getattr(cause, "pgcode", None)
    return code in _MYSQL_CODES or (isinstance(state, str) and state.startswith(_SQL_STATES))
