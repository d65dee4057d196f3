# SPDX-License-Identifier: Apache-2.0
"""Write images in the formats of the OpenStack client, with its formatters, while they are read.

Memory is bounded by a batch of rows: JSON, CSV and plain values are written row by row, YAML batch
by batch, and each batch of a table starts with a header.
"""

import argparse
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any, TextIO

from cliff.formatters.base import ListFormatter
from cliff.formatters.commaseparated import CSVLister
from cliff.formatters.json_format import JSONFormatter
from cliff.formatters.value import ValueFormatter
from cliff.formatters.yaml_format import YAMLFormatter

from evscrub.commands.list_table import FittedTableFormatter
from evscrub.domain.image_report import ImageReport
from evscrub.domain.words import in_words

BATCH_ROWS = 1000

_Cell = str | int | list[str] | None


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the OpenStack client's arguments for output."""
    group = parser.add_argument_group("output formatters")
    group.add_argument(
        "-f",
        "--format",
        dest="formatter",
        choices=sorted(FORMATTERS),
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
        " all; for a table on a terminal, the most useful ones that fit)",
    )
    for formatter in FORMATTERS.values():
        formatter().add_argument_group(parser)


def choose_columns(wanted: Sequence[str]) -> list[str]:
    """Return the requested columns in their fixed order, or all if none is requested.

    :param wanted: names in any case, with spaces or underscores.
    :raises ValueError: a column is unknown.
    """
    if not wanted:
        return list(_COLUMNS)
    names = {_plain(name) for name in wanted}
    unknown = names - {_plain(name) for name in _COLUMNS}
    if unknown:
        raise ValueError(f"no column {', '.join(sorted(unknown))}: there are {', '.join(_COLUMNS)}")
    return [name for name in _COLUMNS if _plain(name) in names]


def write(lines: Iterable[ImageReport], stdout: TextIO, arguments: argparse.Namespace) -> None:
    """Write a line for each image.

    :param arguments: parsed arguments of :func:`add_arguments`.
    """
    columns = choose_columns(arguments.columns)
    how: str = arguments.formatter
    formatter = FORMATTERS[how]()
    rows = (tuple(_cell(_COLUMNS[name](line), how) for name in columns) for line in lines)
    for batch in _batches(rows) if how in _BATCHED else (rows,):
        formatter.emit_list(columns, batch, stdout, arguments)
        stdout.flush()


def _batches(rows: Iterator[tuple[_Cell, ...]]) -> Iterator[list[tuple[_Cell, ...]]]:
    """Yield at least one batch, which may be empty."""
    first = list(islice(rows, BATCH_ROWS))
    rest = iter(lambda: list(islice(rows, BATCH_ROWS)), [])
    return chain([first], rest)


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


_Value = str | int | tuple[str, ...] | datetime | timedelta | None

_COLUMNS: dict[str, Callable[[ImageReport], _Value]] = {
    "ID": lambda line: line.id,
    "Name": lambda line: line.name,
    "Owner": lambda line: line.owner,
    "Size": lambda line: line.size,
    "Stores": lambda line: line.stores,
    "Deleted At": lambda line: line.deleted_at,
    "Due At": lambda line: line.due_at,
    "Due In": lambda line: line.due_in,
    "State": lambda line: line.state,
    "Reason": lambda line: line.reason,
}


def _cell(value: _Value, how: str) -> _Cell:
    match value:
        case datetime():
            return value.strftime("%Y-%m-%dT%H:%M:%SZ")
        case timedelta():
            seconds = round(value.total_seconds())
            return _until(seconds) if how in _FOR_PEOPLE else seconds
        case tuple():
            return list(value) if how in _STRUCTURED else _cell(",".join(value), how)
        case str():
            # Users choose names freely: keep terminal control characters and spreadsheet formulas
            # out of the output.
            if how in _STRUCTURED:
                return value
            printable = _printable(value)
            return f"'{printable}" if how == "csv" and value.startswith(_FORMULA) else printable
        case int() if how in _FOR_PEOPLE:
            return _in_units(value)
    return "" if value is None and how in _FOR_PEOPLE else value


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _until(seconds: int) -> str:
    return in_words(seconds) if seconds >= 0 else f"{in_words(-seconds)} ago"


def _in_units(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1023.5:  # noqa: PLR2004 - rounds to 1024
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} PiB"
