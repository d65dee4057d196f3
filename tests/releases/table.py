# SPDX-License-Identifier: Apache-2.0
"""The table of releases: what ran beside each of them, and what does not work."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

HEADINGS = ("Glance", "OpenStack", "Python", "Cases", "Result")
#: Columns of the cells that may have several lines; with the others, at most 100 in all.
_WIDTHS = {"Cases": 36, "Result": 34}


@dataclass
class Row:
    """One release and how its cases ended.

    :param glance: Glance's version.
    :param openstack: the OpenStack release that it is part of.
    :param python: version of the interpreter that ran Glance.
    """

    glance: str
    openstack: str
    python: str
    ran: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def fail(self, what: str) -> None:
        """Note what does not work, once."""
        if what not in self.failed:
            self.failed.append(what)

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands in the table's columns."""
        cases = ", ".join(f"{area} {count}" for area, count in sorted(self.ran.items()))
        result = "works" if self.ran else "did not run"
        if self.failed:
            result = f"fails: {'; '.join(self.failed)}"
        return (self.glance, self.openstack, self.python, cases, result)


def as_table(rows: Iterable[Row]) -> str:
    """Return a table that reads well as it is and is a simple table in reStructuredText.

    :param rows: the releases, in the table's order.
    """
    cells = [HEADINGS, *(row.cells for row in rows)]
    wrapped = [
        [
            textwrap.wrap(cell, _WIDTHS.get(heading, 80)) or [""]
            for heading, cell in zip(HEADINGS, row, strict=True)
        ]
        for row in cells
    ]
    widths = [max(len(line) for row in wrapped for line in row[n]) for n in range(len(HEADINGS))]
    rule = "  ".join("=" * width for width in widths)
    head, *body = [_lines(row, widths) for row in wrapped]
    return "\n".join([rule, *head, rule, *(line for lines in body for line in lines), rule])


def _lines(row: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    """Return the lines of one row."""
    lines = []
    for number in range(max(len(cell) for cell in row)):
        parts = [cell[number] if number < len(cell) else "" for cell in row]
        padded = (part.ljust(width) for part, width in zip(parts, widths, strict=True))
        lines.append("  ".join(padded).rstrip())
    return lines
