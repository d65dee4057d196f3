# SPDX-License-Identifier: Apache-2.0
"""Draws reports: bars and lines, ours in color and the others in gray, each told by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from tests.bench.kit.results import Bars, Lines, Report

_OURS = ("#c2410c", "#0f766e", "#7c3aed", "#b45309", "#1d4ed8", "#be185d")
_THEIRS = "#a8a29e"
_IDEAL = "#1c1917"
_INK = "#292524"
_FAINT = "#e7e5e4"
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.titleweight": "bold",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "evscrub",
}
_BAR_INCHES = 0.38
_ROOM = 1.22


def draw(report: Report, directory: Path) -> list[Path]:
    """Draw a report's charts as SVG and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    with mpl.rc_context(_STYLE):
        for number, chart in enumerate(report.charts):
            figure = _bars(report, chart) if isinstance(chart, Bars) else _lines(chart)
            name = report.name if number == 0 else f"{report.name}-{number + 1}"
            path = directory / f"{name}.svg"
            figure.savefig(path, format="svg", metadata={"Date": None}, bbox_inches="tight")
            paths.append(path)
    return paths


def is_ours(peer: str) -> bool:
    """Whether a peer is evscrub in one of its ways."""
    return peer.startswith("evscrub")


def _bars(report: Report, chart: Bars) -> Figure:
    cases = report.cases
    heights = [len(report.peers(case)) for case in cases]
    figure = Figure(figsize=(8, 1.0 + sum(heights) * _BAR_INCHES + 0.7 * len(cases)))
    grid = figure.subplots(len(cases), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, case in zip(grid[:, 0], cases, strict=True):
        _bar_panel(axes, report, chart, case)
    figure.suptitle(chart.title, x=0.02, ha="left", weight="bold", size=14)
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    return figure


def _bar_panel(axes: Axes, report: Report, chart: Bars, case: str) -> None:
    found = [(peer, report.median(case, peer, chart.metric)) for peer in report.peers(case)]
    values = [(peer, value) for peer, value in found if value is not None]
    peers = [peer for peer, _ in values]
    sizes = [value for _, value in values]
    colors = [_OURS[0] if is_ours(peer) else _THEIRS for peer in peers]
    axes.barh(peers, sizes, color=colors, height=0.68)
    axes.invert_yaxis()
    axes.set_xlim(0, max(sizes) * _ROOM)
    for row, size in enumerate(sizes):
        axes.annotate(
            number(size),
            (size, row),
            (5, 0),
            textcoords="offset points",
            va="center",
            weight="bold",
        )
    axes.set_title(case, loc="left", size=11, weight="normal")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_visible(False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _lines(chart: Lines) -> Figure:
    figure = Figure(figsize=(8, 5))
    axes = figure.subplots()
    colors = iter(_OURS)
    for name, curve in chart.curves.items():
        xs, ys = [x for x, _ in curve], [y for _, y in curve]
        few = len(curve) <= 12
        if name == chart.ideal:
            axes.plot(xs, ys, color=_IDEAL, linestyle=(0, (4, 3)), linewidth=1, label=name)
        else:
            others = name.startswith(("glance-scrubber", "a poller"))
            color = _THEIRS if others else next(colors, _OURS[0])
            marker = "o" if few else None
            axes.plot(xs, ys, color=color, linewidth=2, marker=marker, label=name)
    if chart.x_logarithmic:
        axes.set_xscale("log")
    if chart.y_logarithmic:
        axes.set_yscale("log")
    points = sorted({x for name, curve in chart.curves.items() for x, _ in curve})
    if len(points) <= 8:
        axes.set_xticks(points)
        axes.xaxis.set_minor_formatter(NullFormatter())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    axes.grid(color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(chart.title, loc="left", size=14)
    axes.legend(frameon=False)
    figure.tight_layout()
    return figure


def number(value: float) -> str:
    """Return a number as a person writes it."""
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:,.3g} million"
    if abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:.2g}"
