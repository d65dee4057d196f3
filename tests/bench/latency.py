# SPDX-License-Identifier: Apache-2.0
"""Latency-bound store: whether all slots are busy when each delete takes 50 ms."""

from __future__ import annotations

from tests.bench.kit.lab import Lab, Site
from tests.bench.kit.processes import Peer
from tests.bench.kit.results import Lines, Metric, Report
from tests.bench.kit.scale import Scale, tell
from tests.bench.kit.seed import Batch

_DEADLINE_SECONDS = 600.0
_DELETE_SECONDS = 0.05
_CONCURRENCIES = (1, 8, 64, 256)
OURS, THEIRS = "evscrub", "glance-scrubber"


def run(lab: Lab, scale: Scale) -> Report:
    report = Report(
        "latency",
        "Latency-bound store: 50 ms a delete",
        metrics=(
            Metric("rate", "deletes/s"),
            Metric("possible", "possible/s"),
            Metric("share", "% of possible", 1),
            Metric("cpu", "CPU us/image"),
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
    concurrencies = _CONCURRENCIES[:2] if scale.quick else _CONCURRENCIES
    for turn in scale.turns:
        for concurrency in concurrencies:
            # Ten seconds' worth at full speed, but for one at a time, where five tell as much.
            possible = concurrency / _DELETE_SECONDS
            images = max(round(min(possible * 10, 20_000) * scale.factor), 40)
            images = min(images, 40 if scale.quick else images)
            for peer in (OURS, THEIRS):
                tell(f"round {turn + 1}: {concurrency} at a time, {peer}")
                # What glance-scrubber takes is known after some; it would take minutes for all.
                some = min(images, 1_000) if peer == THEIRS else images
                site.lay(Batch(some), files=False)
                busy, cpu = (_ours if peer == OURS else _theirs)(site, some, concurrency)
                report.add(
                    f"{concurrency} at a time",
                    peer,
                    rate=some / busy,
                    possible=possible,
                    share=some / busy / possible * 100,
                    cpu=cpu / some * 1e6,
                )
    curves = {
        peer: [
            (each, report.median(f"{each} at a time", peer, "rate") or 0.0)
            for each in concurrencies
        ]
        for peer in (OURS, THEIRS)
    }
    ideal = "concurrency / 50 ms"
    curves[ideal] = [(each, each / _DELETE_SECONDS) for each in concurrencies]
    report.charts = [
        Lines(
            "A store that takes 50 ms a delete",
            "deletes at a time",
            "deletes a second",
            curves,
            x_logarithmic=True,
            y_logarithmic=True,
            ideal=ideal,
        )
    ]
    shares = (
        f"{each}: {report.median(f'{each} at a time', OURS, 'share'):.1f} %"
        for each in concurrencies
    )
    report.goals = [f"at least 95 % of concurrency / 50 ms: {', '.join(shares)}"]
    return report


def _ours(site: Site, images: int, concurrency: int) -> tuple[float, float]:
    path = site.agent_config(
        {"DEFAULT": {"scrub_time": 0}, "scrubber": {"concurrency": concurrency}}
    )
    arguments = ("--config-file", path, "--images", images, "--delete-seconds", _DELETE_SECONDS)
    with Peer("agent", arguments, site.directory / "agent.log") as peer:
        begin = peer.hears("begin", _DEADLINE_SECONDS)
        peer.hears("first", _DEADLINE_SECONDS)
        end = peer.hears("end", _DEADLINE_SECONDS)
        return peer.hears("left", _DEADLINE_SECONDS)["busy"], end["cpu"] - begin["cpu"]


def _theirs(site: Site, images: int, concurrency: int) -> tuple[float, float]:
    own = site.scrubber_config(scrub_pool_size=concurrency)
    files = ("--config-file", site.glance.directory / "glance-api.conf", "--config-file", own)
    arguments = ("--delete-seconds", _DELETE_SECONDS, *files)
    with Peer("scrubber", arguments, site.directory / "scrubber.log") as peer:
        span = peer.measure(_DEADLINE_SECONDS)
        return span.values["busy"], span.cpu_seconds
