# SPDX-License-Identifier: Apache-2.0
"""Fit a table to the terminal, keeping ids, times and numbers on one line.

cliff's formatter narrows all columns equally, down to eight characters: an id takes five lines, and
ten columns still need more than 80 characters. This one omits the least useful columns first, and
wraps texts in the width that the other columns leave.
"""

import argparse
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from cliff.formatters.table import TableFormatter

#: Characters that a column takes beside its text, and a line beside its columns.
_COLUMN_FRAME, _LINE_FRAME = 3, 1

_Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """How the columns of a table share the width of a terminal.

    :param importance: names of columns, the most useful first; those that do not fit are omitted
        from the end, and first of all a column that is not named here.
    :param wrapped: columns whose text may be wrapped, with the smallest readable width in
        characters.
    """

    importance: Sequence[str] = ()
    wrapped: Mapping[str, int] = field(default_factory=dict)

    def rank(self, name: str) -> int:
        """Return the place of a column in the order of importance, from 0."""
        named = name in self.importance
        return self.importance.index(name) if named else len(self.importance)


class FittedTableFormatter(TableFormatter):
    """Write tables as wide as the terminal, if there is one, or as ``--max-width``.

    All batches of a table have the columns chosen for the first batch.
    """

    def __init__(self, layout: Layout | None = None) -> None:
        super().__init__()
        self._layout = layout or Layout()
        self._shown: list[str] | None = None
        self._room: int | None = None

    def emit_list(
        self,
        column_names: Sequence[str],
        data: Iterable[_Row],
        stdout: TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        """Write rows; show all columns that the command line names, whatever their width."""
        rows = list(data)
        self._room = _room(parsed_args)
        if self._shown is None:
            self._shown = list(column_names)
            if self._room is not None and not parsed_args.columns:
                self._shown = choose(
                    self._layout,
                    _widths(column_names, rows),
                    _empty(column_names, rows),
                    self._room,
                )
        places = [list(column_names).index(name) for name in self._shown]
        picked = [tuple(row[place] for place in places) for row in rows]
        super().emit_list(self._shown, picked, stdout, parsed_args)

    def add_rows(self, table: Any, column_names: Sequence[str], data: Iterable[_Row]) -> None:  # noqa: ANN401 - prettytable's, which only cliff knows
        """Fill the table; if the width is limited, limit the columns of text."""
        rows = list(data)
        super().add_rows(table, column_names, rows)
        if self._room is not None:
            table.max_width = fit(self._layout, _widths(column_names, rows), self._room)


def choose(layout: Layout, widths: Mapping[str, int], empty: Iterable[str], room: int) -> list[str]:
    """Return the most useful columns that fit, in the order of `widths`.

    :param widths: width of each column in characters if nothing is wrapped.
    :param empty: columns without any text, which are omitted first.
    :param room: width of a line in characters.
    """
    last = set(empty)
    taken: set[str] = set()
    left = room - _LINE_FRAME
    for name in sorted(widths, key=lambda name: (name in last, layout.rank(name))):
        least = min(widths[name], layout.wrapped.get(name, widths[name])) + _COLUMN_FRAME
        if taken and least > left:
            break
        taken.add(name)
        left -= least
    return [name for name in widths if name in taken]


def fit(layout: Layout, widths: Mapping[str, int], room: int) -> dict[str, int]:
    """Return the largest width of each column of text with which a line fits in `room` if possible.

    Narrow columns keep their width, and the others share the rest equally.
    """
    left = room - _LINE_FRAME - _COLUMN_FRAME * len(widths)
    left -= sum(width for name, width in widths.items() if name not in layout.wrapped)
    texts = sorted(
        (name for name in widths if name in layout.wrapped), key=lambda name: widths[name]
    )
    bounds = {}
    for index, name in enumerate(texts):
        share = max(1, left // (len(texts) - index))
        bounds[name] = max(len(name), min(widths[name], share))
        left -= bounds[name]
    return bounds


def _room(parsed_args: argparse.Namespace) -> int | None:
    """Return the width of a line in characters, as cliff decides it; None for no limit."""
    if parsed_args.max_width > 0:
        return int(parsed_args.max_width)
    if not (parsed_args.fit_width or sys.stdout.isatty()):
        return None
    try:
        return os.get_terminal_size().columns
    except OSError:
        return None


def _widths(column_names: Sequence[str], rows: Sequence[_Row]) -> dict[str, int]:
    return {
        name: max([len(name), *(_width(str(row[place])) for row in rows)])
        for place, name in enumerate(column_names)
    }


def _empty(column_names: Sequence[str], rows: Sequence[_Row]) -> list[str]:
    return [
        name for place, name in enumerate(column_names) if all(row[place] == "" for row in rows)
    ]


def _width(text: str) -> int:
    """Return how many terminal cells a text takes, or an upper bound of it."""
    if text.isascii():
        return len(text)
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)
