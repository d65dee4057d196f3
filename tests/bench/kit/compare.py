# SPDX-License-Identifier: Apache-2.0
"""Compares what benchmarks find with what an earlier run found and saved."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.kit.results import Metric, Report, Sample
from tests.bench.kit.tables import columns

_HEAD = ("", "", "", "", "before", "spread", "now", "spread", "ratio", "")


def load(path: Path) -> list[Report]:
    """Read the reports that an earlier run saved with ``--json``.

    :raises ValueError: the file is not one of these.
    :raises OSError: it cannot be read.
    """
    try:
        return [_report(each) for each in json.loads(path.read_text())["reports"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} has no saved results: {error!r}") from error


def _report(saved: Mapping[str, Any]) -> Report:
    metrics = [Metric(**each) for each in saved["metrics"]]
    samples = [Sample(**each) for each in saved["samples"]]
    return Report(saved["name"], saved["title"], metrics, samples=samples)


def compare(before: Iterable[Report], now: Iterable[Report]) -> str:
    """Return a table of the medians that both have, with their ratio, now to before.

    The spread of each is from the lowest to the highest of its rounds, in percent of the median.
    Where the two ranges have nothing in common, the line ends with ``*``.
    """
    earlier = {report.name: report for report in before}
    rows = [row for report in now if report.name in earlier for row in _rows(earlier, report)]
    if not rows:
        return "Nothing was measured before and now.\n"
    return columns([_HEAD, *rows], left=4) + "\n"


def _rows(earlier: Mapping[str, Report], report: Report) -> Iterable[Sequence[str]]:
    for case in report.cases:
        for peer in report.peers(case):
            for metric in report.metrics:
                old = earlier[report.name].values(case, peer, metric.key)
                new = report.values(case, peer, metric.key)
                if old and new:
                    yield (report.name, case, peer, metric.title, *_figures(old, new, metric))


def _figures(old: Sequence[float], new: Sequence[float], metric: Metric) -> Sequence[str]:
    before, now = statistics.median(old), statistics.median(new)
    are_apart = max(old) < min(new) or max(new) < min(old)
    return (
        f"{before:,.{metric.digits}f}",
        _spread(old),
        f"{now:,.{metric.digits}f}",
        _spread(new),
        f"{now / before:.2f}" if before else "-",
        "*" if are_apart else "",
    )


def _spread(values: Sequence[float]) -> str:
    median = statistics.median(values)
    return f"{(max(values) - min(values)) / abs(median) * 100:.0f} %" if median else "-"
