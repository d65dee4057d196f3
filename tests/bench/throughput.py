# SPDX-License-Identifier: Apache-2.0
"""Throughput: how fast due images are scrubbed from a file store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from tests.bench.kit.bus import connect, utc_now
from tests.bench.kit.lab import Lab, Site
from tests.bench.kit.processes import Peer, Span
from tests.bench.kit.results import Bars, Metric, Ratio, Report
from tests.bench.kit.scale import Scale, tell
from tests.bench.kit.seed import Batch

_DEADLINE_SECONDS = 900.0
_OPTIONS: dict[str, dict[str, object]] = {"DEFAULT": {"scrub_time": 0}}
SCRUBBER = "glance-scrubber, pool 1"
BARE = "bare loop, same SQL"
SWEEP, EVENTS = "evscrub, from a sweep", "evscrub, from events"
_BARE_SHARES = {"mariadb": 0.65, "postgresql": 0.75}
Measure = Callable[[Site, int], Span]


def run(lab: Lab, scale: Scale) -> Report:
    report = Report(
        "throughput",
        "Throughput: due images with three properties each, file store",
        metrics=(
            Metric("rate", "images/s"),
            Metric("cpu", "CPU us/image"),
            Metric("server", "database CPU us/image"),
            Metric("peak", "peak MB"),
        ),
        ratios=(
            Ratio("rate", SCRUBBER, "x scrubber"),
            Ratio("rate", BARE, "x bare"),
            Ratio("cpu", SCRUBBER, "CPU x scrubber"),
        ),
        charts=[Bars("rate", "Images scrubbed a second")],
    )
    many, few = scale.count(20_000, 500), scale.count(500, 50)
    peers: dict[str, tuple[int, Measure]] = {
        SWEEP: (many, _from_sweep),
        EVENTS: (many, lambda site, images: _from_events(lab, site, images)),
        SCRUBBER: (few, lambda site, _: _scrubber(site, 1)),
        "glance-scrubber, pool 8": (few, lambda site, _: _scrubber(site, 8)),
        BARE: (many, lambda site, _: _bare(site)),
        "bare loop, least SQL": (many, lambda site, _: _bare(site, "--least")),
    }
    for database in lab.databases:
        site = lab.site(database)
        for turn in scale.turns:
            for peer, (images, measure) in peers.items():
                tell(f"{database}, round {turn + 1}: {peer}")
                site.lay(Batch(images))
                _measure(report, database, peer, site, images, measure)
    report.notes = [
        f"{many:,} images; {few:,} for glance-scrubber, which gets no cheaper with more",
        (
            "time runs from when a peer begins its work, set up, to its last image's end in the"
            " registry; glance-scrubber's includes its scan, evscrub's its sweep"
        ),
        "events were in RabbitMQ's queue before the agent began, and its sweep was off",
        "the bare loop is one thread of plain PyMySQL or psycopg2: batches of 100 and os.unlink",
    ]
    for database in lab.databases:
        report.goals.append(_goal(report, database))
    return report


def _measure(
    report: Report, database: str, peer: str, site: Site, images: int, measure: Measure
) -> None:
    span = measure(site, images)
    left = site.pending() + sum(1 for _ in site.data.iterdir())
    if left:
        raise AssertionError(f"{peer} left {left} rows or files")
    report.add(database, peer, **_figures(span, images))


def _goal(report: Report, database: str) -> str:
    bare_share = _BARE_SHARES[database]
    scrubber, bare, _ = (report.ratio(database, SWEEP, each) or 0.0 for each in report.ratios)
    events = report.ratio(database, EVENTS, Ratio("rate", SWEEP, "")) or 0.0
    return (
        f"{database}: 60 times glance-scrubber: {scrubber:.1f}; {bare_share} of the bare loop:"
        f" {bare:.2f}; from events 0.8 of a sweep's: {events:.2f}"
    )


def _figures(span: Span, images: int) -> dict[str, float]:
    return {
        "rate": images / span.seconds,
        "cpu": span.cpu_seconds / images * 1e6,
        "server": span.server_cpu_seconds / images * 1e6,
        "peak": span.peak_bytes / 1e6,
    }


def _from_sweep(site: Site, images: int) -> Span:
    path = site.agent_config(_OPTIONS)
    arguments = ("--config-file", path, "--images", images)
    with Peer("agent", arguments, site.directory / "agent.log") as peer:
        return peer.measure(_DEADLINE_SECONDS, site.servers)


def _from_events(lab: Lab, site: Site, images: int) -> Span:
    path = site.agent_config(_OPTIONS)
    with connect(lab.rabbitmq) as bus:
        bus.fill(Batch(images).numbers, utc_now() - timedelta(days=1))
    arguments = ("--config-file", path, "--images", images, "--no-sweep")
    with Peer("agent", arguments, site.directory / "agent.log") as peer:
        return peer.measure(_DEADLINE_SECONDS, site.servers)


def _scrubber(site: Site, pool: int) -> Span:
    own = site.scrubber_config(scrub_pool_size=pool)
    files = ("--config-file", site.glance.directory / "glance-api.conf", "--config-file", own)
    with Peer("scrubber", files, site.directory / "scrubber.log") as peer:
        return peer.measure(_DEADLINE_SECONDS, site.servers)


def _bare(site: Site, *options: str) -> Span:
    arguments = ("--database", site.glance.database_url, *options)
    with Peer("bare", arguments, site.directory / "bare.log") as peer:
        return peer.measure(_DEADLINE_SECONDS, site.servers)
