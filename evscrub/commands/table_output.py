# SPDX-License-Identifier: Apache-2.0
"""Write rows in the formats of the OpenStack client, with its formatters, while they are read.

Memory is bounded by a batch of rows: JSON, CSV and plain values are written row by row, YAML batch
by batch, and each batch of a table starts with a header.
"""

import argparse
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any, Generic, TextIO, TypeVar

from cliff.formatters.base import Formatter, ListFormatter
from cliff.formatters.commaseparated import CSVLister
from cliff.formatters.json_format import JSONFormatter
from cliff.formatters.value import ValueFormatter
from cliff.formatters.yaml_format import YAMLFormatter

from evscrub.commands.fitted_table import FittedTableFormatter, Layout
from evscrub.domain.quoting import printable
from evscrub.domain.refusals import UsageError
from evscrub.domain.words import in_short, in_units

BATCH_ROWS = 1000

R = TypeVar("R")


class SizeBytes(int):
    """A number of bytes: shown in units in a table, as a plain number in the other formats."""


#: A bool is an int, and shown as yes or no in a table.
Value = str | int | tuple[str, ...] | datetime | timedelta | None
_Cell = str | int | list[str] | None


@dataclass(frozen=True)  # Python 3.11 cannot make a generic one with slots
class Table(Generic[R]):
    """The columns that a command writes of each row.

    :param columns: what returns a column's value, by name of the column in their order.
    :param layout: how a table of them fits a terminal.
    :param brief: the columns that the format ``table`` has without ``--long``; empty for all.
    """

    columns: Mapping[str, Callable[[R], Value]]
    layout: Layout = field(default_factory=Layout)
    brief: Sequence[str] = ()

    def choose(self, wanted: Sequence[str]) -> list[str]:
        """Return the requested columns in their fixed order, or all if none is requested.

        :param wanted: names in any case, with spaces or underscores.
        :raises UsageError: a column is unknown.
        """
        if not wanted:
            return list(self.columns)
        names = {_plain(name): name for name in wanted}
        unknown = names.keys() - {_plain(name) for name in self.columns}
        if unknown:
            told = ", ".join(sorted(names[name] for name in unknown))
            raise UsageError(f"no column {told}: there are {', '.join(self.columns)}")
        return [name for name in self.columns if _plain(name) in names]

    def shown(self, arguments: argparse.Namespace) -> list[str]:
        """Return the columns that a command line asks for, in their fixed order.

        :param arguments: parsed arguments of :func:`add_arguments`.
        :raises UsageError: a column is unknown.
        """
        if arguments.columns or arguments.formatter not in _FOR_PEOPLE or self._is_long(arguments):
            return self.choose(arguments.columns)
        return [name for name in self.columns if name in self.brief]

    def may_omit(self, arguments: argparse.Namespace) -> bool:
        """Return whether a table may omit columns for which a line has no room."""
        return not arguments.columns and not (self.brief and arguments.long)

    def _is_long(self, arguments: argparse.Namespace) -> bool:
        return not self.brief or arguments.long


class StreamedJSONFormatter(JSONFormatter):
    """Write the same JSON as cliff's formatter, row by row."""

    def emit_list(
        self,
        column_names: Sequence[str],
        data: Iterable[Sequence[Any]],
        stdout: TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        """Write rows."""
        indent = None if parsed_args.noindent else 2
        before, after = "[", "]"
        for row in data:
            text = json.dumps(dict(zip(column_names, row, strict=True)), indent=indent)
            if indent is not None:
                before, after = before.rstrip() + "\n", "\n]"
                text = textwrap.indent(text, " " * indent)
            stdout.write(before + text)
            before = ", "
        stdout.write(before.replace(", ", "") + after + "\n")


FORMATTERS: dict[str, type[ListFormatter]] = {
    "csv": CSVLister,
    "json": StreamedJSONFormatter,
    "table": FittedTableFormatter,
    "value": ValueFormatter,
    "yaml": YAMLFormatter,
}
_BATCHED = {"table", "yaml"}
_STRUCTURED = {"json", "yaml"}
_FOR_PEOPLE = {"table"}
#: A spreadsheet reads a CSV cell that starts with one of these as a formula; an apostrophe in front
#: prevents that.
_FORMULA = tuple("=+-@\t\r\n")


def add_arguments(parser: argparse.ArgumentParser, table: Table[R] | None = None) -> None:
    """Add the OpenStack client's arguments for output, and ``--long`` if `table` has a brief form.

    :param table: what the command writes; None if that has no brief form.
    """
    group = add_format_arguments(parser, FORMATTERS, _default_columns(table))
    if table is not None and table.brief:
        group.add_argument("--long", action="store_true", help="show all columns in a table too")


def add_format_arguments(
    parser: argparse.ArgumentParser,
    formatters: Mapping[str, type[Formatter]],
    default_columns: str,
) -> argparse._ArgumentGroup:
    """Add the OpenStack client's arguments for some formatters, and return their group.

    :param formatters: by the name of the format; ``table`` is the default.
    :param default_columns: what is shown without ``-c``, for the help.
    """
    group = parser.add_argument_group("output formatters")
    group.add_argument(
        "-f",
        "--format",
        dest="formatter",
        choices=sorted(formatters),
        default="table",
        help="the output format, defaults to table",
    )
    group.add_argument(
        "-c",
        "--column",
        dest="columns",
        action="append",
        default=[],
        metavar="COLUMN",
        help="specify the column(s) to include, can be repeated to show multiple columns (default:"
        f" {default_columns})",
    )
    for formatter in formatters.values():
        formatter().add_argument_group(parser)
    return group


def _default_columns(table: Table[R] | None) -> str:
    if table is None or not table.brief:
        return "all; for a table on a terminal, the most useful ones that fit"
    return (
        f"all; for a table {', '.join(table.brief)}, of which a narrow terminal has the most useful"
        " ones that fit"
    )


def write(
    table: Table[R], rows: Iterable[R], stdout: TextIO, arguments: argparse.Namespace
) -> None:
    """Write a line for each row, while they are read.

    :param arguments: parsed arguments of :func:`add_arguments`.
    :raises UsageError: the arguments name an unknown column.
    """
    columns = table.shown(arguments)
    how: str = arguments.formatter
    formatter = FORMATTERS[how]()
    if isinstance(formatter, FittedTableFormatter):
        formatter = FittedTableFormatter(table.layout, may_omit=table.may_omit(arguments))
    getters = [table.columns[name] for name in columns]
    cells = (tuple(cell(value_of(row), how) for value_of in getters) for row in rows)
    for batch in _batches(cells) if how in _BATCHED else (cells,):
        formatter.emit_list(columns, batch, stdout, arguments)
        stdout.flush()


def _batches(rows: Iterator[tuple[_Cell, ...]]) -> Iterator[list[tuple[_Cell, ...]]]:
    """Yield at least one batch, which may be empty."""
    first = list(islice(rows, BATCH_ROWS))
    rest = iter(lambda: list(islice(rows, BATCH_ROWS)), [])
    return chain([first], rest)


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


def cell(value: Value, how: str) -> _Cell:
    """Return a value as a formatter is given it.

    :param how: name of the format.
    """
    match value:
        case bool() if how in _FOR_PEOPLE:
            return "yes" if value else "no"
        case datetime():
            return value.strftime("%Y-%m-%dT%H:%M:%SZ")
        case timedelta():
            seconds = round(value.total_seconds())
            return in_short(seconds) if how in _FOR_PEOPLE else seconds
        case tuple():
            return list(value) if how in _STRUCTURED else cell(",".join(value), how)
        case str():
            # Users choose names freely: keep terminal control characters and spreadsheet formulas
            # out of the output.
            if how in _STRUCTURED:
                return value
            shown = printable(value)
            return f"'{shown}" if how == "csv" and value.startswith(_FORMULA) else shown
        case SizeBytes():
            return in_units(value) if how in _FOR_PEOPLE else int(value)
    return "" if value is None and how in _FOR_PEOPLE else value
