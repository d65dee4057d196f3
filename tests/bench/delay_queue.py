# SPDX-License-Identifier: Apache-2.0
"""Delay queue: what a waiting image costs in memory and CPU."""

from __future__ import annotations

from tests.bench.kit.lab import Lab
from tests.bench.kit.processes import Peer
from tests.bench.kit.results import Bars, Metric, Ratio, Report
from tests.bench.kit.scale import Scale, tell

_DEADLINE_SECONDS = 300.0
_PEERS = {"evscrub": "evscrub", "heapq + dict": "heapq", "asyncio timers": "asyncio"}


def run(lab: Lab, scale: Scale) -> Report:
    report = Report(
        "delay_queue",
        "Delay queue: images that wait, due in no order within an hour",
        metrics=(
            Metric("bytes", "bytes each"),
            Metric("adds", "adds/s"),
            Metric("pops", "pops/s"),
        ),
        ratios=(Ratio("bytes", "heapq + dict", "bytes x heapq"),),
        charts=[
            Bars("bytes", "Bytes a waiting image"),
            Bars("adds", "Adds for a second of CPU"),
        ],
    )
    count = scale.count(1_000_000, 50_000)
    case = f"{count:,}"
    for turn in scale.turns:
        for peer, kind in _PEERS.items():
            tell(f"round {turn + 1}: {peer}")
            log = lab.directory / "pending.log"
            with Peer("pending", ("--kind", kind, "--count", count), log) as process:
                message = process.hears("end", _DEADLINE_SECONDS)
            report.add(case, peer, **{key: message[key] for key in ("bytes", "adds", "pops")})
    size, adds = (report.median(case, "evscrub", key) or 0.0 for key in ("bytes", "adds"))
    report.goals = [
        f"at most 110 bytes each: {size:.0f}; at least 300,000 adds a second: {adds:,.0f}"
    ]
    report.notes = [
        "bytes are growth of resident memory; adds and pops are for a second of CPU time",
        "the other two only wait: no lanes, no turns of owners, no bound, no id in work twice",
    ]
    return report
