# SPDX-License-Identifier: Apache-2.0
"""Prints a report as text."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.kit.results import Report

_ABSENT = "-"


def render(report: Report) -> str:
    """Return a report as text: medians by case and peer, ratios, goals, notes."""
    parts = [report.title, "=" * len(report.title), ""]
    if report.samples:
        parts += [_table(report), ""]
    for title, text in report.texts.items():
        parts += [title, "-" * len(title), text.rstrip(), ""]
    parts += [f"Goal: {goal}" for goal in report.goals]
    parts += [f"Note: {note}" for note in report.notes]
    return "\n".join(parts).rstrip() + "\n"


def _table(report: Report) -> str:
    head = ["", "", "rounds", *(each.title for each in report.metrics)]
    head += [each.title for each in report.ratios]
    rows = []
    for case in report.cases:
        for number, peer in enumerate(report.peers(case)):
            rounds = sum(each.case == case and each.peer == peer for each in report.samples)
            row = [case if number == 0 else "", peer, str(rounds)]
            row += [
                _figure(report.median(case, peer, each.key), each.digits) for each in report.metrics
            ]
            row += [_times(report.ratio(case, peer, each)) for each in report.ratios]
            rows.append(row)
    return columns([head, *rows])


def columns(rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """Align rows, the first of them a head, with the first `left` columns to the left."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _figure(value: float | None, digits: int) -> str:
    return _ABSENT if value is None else f"{value:,.{digits}f}"


def _times(value: float | None) -> str:
    if value is None:
        return _ABSENT
    return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"
