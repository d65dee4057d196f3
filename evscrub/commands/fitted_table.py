# SPDX-License-Identifier: Apache-2.0
"""Fit a table to the terminal, keeping ids, times and numbers on one line.

cliff's formatter narrows all columns equally, down to eight characters, so that an id takes five
lines. This one wraps only columns of text. If a line does not fit, it omits the padding of columns
first, and then the least useful columns, unless the command line asks for all of them.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import prettytable
from cliff.formatters.table import TableFormatter

from evscrub.domain.words import cells_wide

_Row = Sequence[Any]
_ID_WIDTH = 36


@dataclass(frozen=True, slots=True)
class Layout:
    """How the columns of a table share the width of a terminal.

    :param importance: names of columns, the most useful first; columns that do not fit are omitted
        from the end, those without a place here before all others.
    :param wrapped: columns whose text may be wrapped, with the smallest readable width in
        characters.
    """

    importance: Sequence[str] = ()
    wrapped: Mapping[str, int] = field(default_factory=dict)

    def rank(self, name: str) -> int:
        """Return the place of a column in the order of importance, from 0."""
        named = name in self.importance
        return self.importance.index(name) if named else len(self.importance)

    def least(self, name: str, width: int) -> int:
        """Return the smallest readable width of a column.

        :param width: its width in characters if nothing is wrapped.
        """
        return max(len(name), min(width, self.wrapped.get(name, width)))


class FittedTableFormatter(TableFormatter):
    """Write tables as wide as the terminal, if there is one, or as ``--max-width``.

    All batches of a table have the columns chosen for the first batch.

    :param may_omit: whether to omit columns for which a line has no room.
    """

    def __init__(self, layout: Layout | None = None, *, may_omit: bool = True) -> None:
        super().__init__()
        self._layout = layout or Layout()
        self._may_omit = may_omit
        self._shown: list[str] | None = None
        self._padding = 1

    def emit_list(
        self,
        column_names: Sequence[str],
        data: Iterable[_Row],
        stdout: TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        """Write rows."""
        rows = list(data)
        widths = _widths(column_names, rows)
        room = _room(parsed_args)
        if self._shown is None:
            chosen = choose(self._layout, widths, room, may_omit=self._may_omit)
            self._shown, self._padding = chosen
        table = prettytable.PrettyTable(self._shown, print_empty=parsed_args.print_empty)
        table.padding_width = self._padding
        if room is not None:
            left = room - frame(len(self._shown), self._padding)
            table.max_width = fit(self._layout, {name: widths[name] for name in self._shown}, left)
        places = [list(column_names).index(name) for name in self._shown]
        self.add_rows(table, self._shown, [tuple(row[place] for place in places) for row in rows])
        stdout.write(f"{table.get_string()}\n")

    def emit_one(
        self,
        column_names: Sequence[str],
        data: Sequence[Any],
        stdout: TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        """Write one row with a line for each field; a value is never narrower than an id."""
        table = prettytable.PrettyTable(("Field", "Value"))
        table.align = "l"
        room = _room(parsed_args)
        if room is not None:
            left = room - frame(2, 1) - max(map(len, column_names), default=0)
            table.max_width = {"Value": max(_ID_WIDTH, left)}
        for name, value in zip(column_names, data, strict=True):
            table.add_row([name, value])
        stdout.write(f"{table.get_string()}\n")


def frame(columns: int, padding: int) -> int:
    """Return how many characters of a line are not text."""
    return (2 * padding + 1) * columns + 1


def choose(
    layout: Layout, widths: Mapping[str, int], room: int | None, *, may_omit: bool
) -> tuple[list[str], int]:
    """Return the columns to show, in the order of `widths`, and their padding.

    :param widths: width of each column in characters if nothing is wrapped.
    :param room: width of a line in characters; None for no limit.
    :param may_omit: whether to omit columns that do not fit.
    """
    least = {name: layout.least(name, width) for name, width in widths.items()}

    def fits(names: Sequence[str], padding: int) -> bool:
        used = frame(len(names), padding) + sum(least[name] for name in names)
        return room is None or used <= room

    shown = list(widths)
    if fits(shown, 1):
        return shown, 1
    by_importance = sorted(shown, key=layout.rank)
    while may_omit and len(by_importance) > 1 and not fits(by_importance, 0):
        by_importance.pop()
    return [name for name in shown if name in by_importance], 0


def fit(layout: Layout, widths: Mapping[str, int], room: int) -> dict[str, int]:
    """Return the largest width of each column of text with which a line fits, if possible.

    Each gets its smallest readable width, and the rest is shared equally by those that need more.

    :param widths: width of each column in characters if nothing is wrapped.
    :param room: characters of a line for the text of all columns.
    """
    texts = [name for name in widths if name in layout.wrapped]
    bounds = {name: layout.least(name, widths[name]) for name in texts}
    left = room - sum(bounds.get(name, width) for name, width in widths.items())
    texts.sort(key=lambda name: widths[name] - bounds[name])
    for index, name in enumerate(texts):
        share = max(0, left) // (len(texts) - index)
        more = min(widths[name] - bounds[name], share)
        bounds[name] += more
        left -= more
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
        name: max([len(name), *(cells_wide(str(row[place])) for row in rows)])
        for place, name in enumerate(column_names)
    }
