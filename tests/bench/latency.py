# SPDX-License-Identifier: Apache-2.0
"""Latency-bound store: whether all slots are busy when each delete takes 50 or 200 ms."""

from __future__ import annotations

from collections.abc import Mapping

from tests.bench.kit.lab import Lab, Options, Site
from tests.bench.kit.processes import Peer
from tests.bench.kit.results import Lines, Metric, Report
from tests.bench.kit.scale import Scale, tell
from tests.bench.kit.seed import Batch

_DEADLINE_SECONDS = 600.0
#: Deletes at a time, by the seconds that each takes.
_CONCURRENCIES: Mapping[float, tuple[int, ...]] = {0.05: (1, 8, 64, 256), 0.2: (512,)}
_QUICK_CONCURRENCIES: Mapping[float, tuple[int, ...]] = {0.05: (1, 8)}
#: Ten seconds' worth at full speed, but for one at a time, where five tell as much.
_MOST_IMAGES = 20_000
#: What glance-scrubber takes is known after some; it would take minutes for all.
_SCRUBBER_IMAGES = 500
_GOALS = (
    ((0.05, 8), "share", "95 % of what is possible"),
    ((0.05, 64), "share", "95 % of what is possible"),
    ((0.05, 256), "rate", "2,500 deletes a second"),
    ((0.2, 512), "share", "95 % of what is possible"),
    ((0.2, 512), "peak", "under 200 MB"),
)
OURS, THEIRS = "evscrub", "glance-scrubber"


def run(lab: Lab, scale: Scale) -> Report:
    report = Report(
        "latency",
        "Latency-bound store: 50 or 200 ms a delete",
        metrics=(
            Metric("rate", "deletes/s"),
            Metric("possible", "possible/s"),
            Metric("share", "% of possible", 1),
            Metric("cpu", "CPU us/image"),
            Metric("peak", "peak MB"),
        ),
        notes=[
            "the store is a stand-in in the peer's process that sleeps, as a client waits",
            (
                "from the first delete's begin to the last one's end, with their beginning and"
                " running dry; the registry is on MariaDB"
            ),
        ],
    )
    site = lab.site(lab.databases[0])
    concurrencies = _QUICK_CONCURRENCIES if scale.quick else _CONCURRENCIES
    cases = [(seconds, each) for seconds, many in concurrencies.items() for each in many]
    for turn in scale.turns:
        for seconds, concurrency in cases:
            possible = concurrency / seconds
            images = max(round(min(possible * 10, _MOST_IMAGES) * scale.factor), 40)
            images = min(images, 40 if scale.quick else images)
            for peer in (OURS, THEIRS):
                case = _case(seconds, concurrency)
                tell(f"round {turn + 1}: {case}, {peer}")
                some = min(images, _SCRUBBER_IMAGES) if peer == THEIRS else images
                site.lay(Batch(some), files=False)
                path = _config(site, peer, concurrency)
                figures = _measure(site, peer, some, ("--delete-seconds", seconds, *path))
                share = figures["rate"] / possible * 100
                report.add(case, peer, possible=possible, share=share, **figures)
    seconds, many = next(iter(concurrencies.items()))
    report.charts = [_chart(report, seconds, many)]
    report.goals = [
        f"{_case(*case)}: {goal}: {report.median(_case(*case), OURS, metric):,.0f}"
        for case, metric, goal in _GOALS
        if case in cases
    ]
    return report


def _case(seconds: float, concurrency: int) -> str:
    return f"{seconds * 1000:.0f} ms, {concurrency} at a time"


def _chart(report: Report, seconds: float, concurrencies: tuple[int, ...]) -> Lines:
    curves = {
        peer: [
            (each, report.median(_case(seconds, each), peer, "rate") or 0.0)
            for each in concurrencies
        ]
        for peer in (OURS, THEIRS)
    }
    ideal = f"concurrency / {seconds * 1000:.0f} ms"
    curves[ideal] = [(each, each / seconds) for each in concurrencies]
    return Lines(
        f"A store that takes {seconds * 1000:.0f} ms a delete",
        "deletes at a time",
        "deletes a second",
        curves,
        x_logarithmic=True,
        y_logarithmic=True,
        ideal=ideal,
    )


def _config(site: Site, peer: str, concurrency: int) -> tuple[object, ...]:
    if peer == THEIRS:
        own = site.scrubber_config(scrub_pool_size=concurrency)
        return ("--config-file", site.glance.directory / "glance-api.conf", "--config-file", own)
    options: Options = {
        "DEFAULT": {"scrub_time": 0},
        "scrubber": {"concurrency": concurrency},
    }
    return ("--config-file", site.agent_config(options))


def _measure(site: Site, peer: str, images: int, arguments: tuple[object, ...]) -> dict[str, float]:
    if peer == THEIRS:
        with Peer("scrubber", arguments, site.directory / "scrubber.log") as process:
            span = process.measure(_DEADLINE_SECONDS)
        busy, cpu, peak = span.values["busy"], span.cpu_seconds, span.peak_bytes
    else:
        log = site.directory / "agent.log"
        with Peer("agent", (*arguments, "--images", images), log) as process:
            begin = process.hears("begin", _DEADLINE_SECONDS)
            process.hears("first", _DEADLINE_SECONDS)
            end = process.hears("end", _DEADLINE_SECONDS)
            left = process.hears("left", _DEADLINE_SECONDS)
        busy, cpu, peak = left["busy"], end["cpu"] - begin["cpu"], left["peak"]
    return {"rate": images / busy, "cpu": cpu / images * 1e6, "peak": peak / 1e6}
