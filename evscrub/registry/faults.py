# SPDX-License-Identifier: Apache-2.0
"""Distinguish errors caused by rows from errors of a database that is down. Pure."""

from oslo_db import exception as db_exception

from evscrub.registry.errors import code_of, driver_error

#: Exceptions while rows are read or decided about: dates out of range, text that does not decode,
#: values of another type than their column's.
_OF_VALUES = (ArithmeticError, LookupError, TypeError, ValueError)
_OF_DATA = (
    db_exception.DBConstraintError,
    db_exception.DBDataError,
    db_exception.DBDuplicateEntry,
    db_exception.DBReferenceError,
)
#: MySQL and MariaDB: values out of range, malformed or too long, constraints, a trigger's SIGNAL.
_MYSQL_CODES = frozenset({1264, 1292, 1366, 1406, 1411, 1451, 1452, 1525, 1644, 3819, 4025})
#: PostgreSQL: data exceptions, constraint violations, and RAISE in a trigger.
_SQL_STATES = ("22", "23", "P0001")


def is_of_rows(error: Exception) -> bool:
    """Return whether the rows that were read or written cause an error, not the database.

    An error that is not known counts as the database's, so that the statement is retried.

    :param error: any exception of a call on the registry.
    """
    if isinstance(error, _OF_DATA):
        return True
    if isinstance(driver_error(error), _OF_VALUES):
        return True
    code = code_of(error)
    return code in _MYSQL_CODES or (isinstance(code, str) and code.startswith(_SQL_STATES))
