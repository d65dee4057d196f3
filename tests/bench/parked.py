# SPDX-License-Identifier: Apache-2.0
"""Parked images: what very many cost, and whether images of another store fall behind."""

from __future__ import annotations

from tests.bench.kit import seed
from tests.bench.kit.bus import connect
from tests.bench.kit.lab import Lab, Site
from tests.bench.kit.processes import Peer, peak_rss_bytes, rss_bytes
from tests.bench.kit.results import Metric, Report
from tests.bench.kit.scale import Scale, tell
from tests.bench.lateness import Deleter

_RATE = 100.0
_SCRUB_SECONDS = 5
_DEADLINE_SECONDS = 3600.0


def run(lab: Lab, scale: Scale) -> Report:
    parked = scale.count(1_000_000, 2_000)
    images = round(_RATE * (3.0 if scale.quick else 30.0))
    report = Report(
        "parked",
        f"Parked: {parked:,} images of a store not enabled, beside {_RATE:.0f} deletes a second",
        metrics=(
            Metric("seconds", "s to park", 1),
            Metric("lines", "log lines"),
            Metric("rss", "MB"),
            Metric("peak", "peak MB"),
            Metric("p50", "p50 ms"),
            Metric("p99", "p99 ms"),
        ),
        notes=[
            "p50 and p99 are how late the deletes of the other store are, while images are parked",
            "MB are those of the whole agent when its sweep has parked them all",
        ],
    )
    database = lab.databases[0]
    site = lab.site(database)
    site.expect_many()
    for turn in scale.turns:
        for count in (0, parked):
            tell(f"{database}, round {turn + 1}: {count:,} parked")
            report.add(f"{count:,}", "evscrub", **_measure(lab, site, count, images))
    return report


def _measure(lab: Lab, site: Site, parked: int, images: int) -> dict[str, float]:
    good = seed.Batch(images, live=True)
    # At least one, which shows that parked images are found.
    bad = seed.Batch(max(1, parked), 1 + images, spread_seconds=3600.0, scheme="rbd")
    site.lay(good, bad, files=False)
    seed.write_files(good, site.data)
    path = site.agent_config({"DEFAULT": {"scrub_time": _SCRUB_SECONDS}})
    log = site.directory / "parked.log"
    log.unlink(missing_ok=True)
    limits = ("--limit", round(_DEADLINE_SECONDS))
    arguments = ("--config-file", path, "--images", images, "--parked", bad.count, *limits)
    with connect(lab.rabbitmq) as bus:
        bus.clear()
        deleter = Deleter(site, bus)
        with Peer("agent", arguments, log) as peer:
            begin = peer.hears("begin", _DEADLINE_SECONDS)
            bus.publish_at(_RATE, good.numbers, deleter.delete)
            deleter.close()
            done = peer.hears("parked", _DEADLINE_SECONDS)
            end = peer.hears("end", _DEADLINE_SECONDS)
            rss, peak = rss_bytes(peer.pid), peak_rss_bytes(peer.pid)
    return {
        "seconds": done["wall"] - begin["wall"],
        "lines": len(log.read_text().splitlines()),
        "rss": rss / 1e6,
        "peak": peak / 1e6,
        "p50": end["late_p50"] * 1000,
        "p99": end["late_p99"] * 1000,
    }
