# SPDX-License-Identifier: Apache-2.0
"""Sort any number of rows in constant memory, by the arguments of the OpenStack client.

SQLite sorts them: it keeps a few megabytes in memory and the rest in a temporary file that only its
process can open and that vanishes with it.
"""

import argparse
import pickle
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import TypeVar

from evscrub.commands.table_output import Table, Value
from evscrub.domain.refusals import UsageError

R = TypeVar("R")

_Key = int | float | bytes | None


class SortError(Exception):
    """Raised if the rows cannot be sorted; the message says what to do."""


def add_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the OpenStack client's arguments for sorting.

    :param default: the order without them, as a phrase.
    """
    group = parser.add_argument_group("sorting")
    group.add_argument(
        "--sort-column",
        action="append",
        default=[],
        dest="sort_columns",
        metavar="SORT_COLUMN",
        help="specify the column(s) to sort the data (columns specified first have a priority,"
        " non-existing columns are ignored with a warning), column names are case-insensitive and"
        f" accept underscores for spaces, can be repeated (default: {default})",
    )
    direction = group.add_mutually_exclusive_group()
    direction.add_argument(
        "--sort-ascending",
        action="store_const",
        dest="sort_direction",
        const="asc",
        help="sort in ascending order, empty values last (default)",
    )
    direction.add_argument(
        "--sort-descending",
        action="store_const",
        dest="sort_direction",
        const="desc",
        help="sort in descending order, empty values first",
    )


def chosen(
    table: Table[R], arguments: argparse.Namespace, on_unknown: Callable[[str], None]
) -> list[str]:
    """Return the existing columns that a command line sorts by, the first one first.

    :param arguments: parsed arguments of :func:`add_arguments`.
    :param on_unknown: called with what is wrong with a column that does not exist.
    """
    names: list[str] = []
    for wanted in arguments.sort_columns:
        try:
            names += table.choose([wanted])
        except UsageError as error:
            on_unknown(str(error))
    return list(dict.fromkeys(names))


def in_order(
    rows: Iterable[R],
    keys: Sequence[Callable[[R], Value]],
    *,
    ties: Sequence[Callable[[R], Value]] = (),
    descending: bool = False,
) -> Iterator[R]:
    """Yield rows by their keys, those without a value last, or first if `descending`.

    Nothing is yielded before all rows are read.

    :param keys: what to sort by, the most significant first; at least one.
    :param ties: ascending keys for rows whose keys are equal.
    :raises SortError: there is no room for the temporary file.
    """
    getters = [*keys, *ties]
    columns = [f"k{number}" for number in range(len(getters))]
    order = [
        f"{column} IS NULL {direction}, {column} {direction}"
        for number, column in enumerate(columns)
        for direction in ["DESC" if descending and number < len(keys) else "ASC"]
    ]
    # An empty name is a temporary file, which SQLite creates only if the rows outgrow its cache.
    with closing(sqlite3.connect("", isolation_level=None)) as connection:
        try:
            for statement in ("journal_mode = OFF", "temp_store = FILE"):
                connection.execute(f"PRAGMA {statement}")
            connection.execute(f"CREATE TABLE rows ({', '.join(columns)}, row)")
            connection.execute("BEGIN")
            insert = f"INSERT INTO rows VALUES ({'?, ' * len(columns)}?)"  # noqa: S608 - question marks
            connection.executemany(
                insert,
                ((*(_key(getter(row)) for getter in getters), pickle.dumps(row)) for row in rows),
            )
            for (row,) in connection.execute(f"SELECT row FROM rows ORDER BY {', '.join(order)}"):  # noqa: S608 - names made above
                yield pickle.loads(row)  # noqa: S301 - written above
        except sqlite3.Error as error:
            raise SortError(
                f"cannot sort in a temporary file: {error}: set TMPDIR to a directory with room"
            ) from None


def _key(value: Value) -> _Key:
    """Return a value that SQLite sorts as Python sorts the given one."""
    match value:
        case datetime():
            return value.isoformat().encode()
        case timedelta():
            return value.total_seconds()
        case tuple():
            return _key(",".join(value))
        case str():
            # Bytes of UTF-8 sort by code point; a text that is not Unicode must not fail.
            return value.encode(errors="replace")
        case int():
            return int(value)
    return None
