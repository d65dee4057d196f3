# SPDX-License-Identifier: Apache-2.0
"""Idle: what an agent costs that has nothing to do."""

from __future__ import annotations

import time
from pathlib import Path

import sqlalchemy as sa

from tests.bench.kit.lab import Lab, Options, Site
from tests.bench.kit.processes import Peer, cpu_seconds, rss_bytes, wake_ups
from tests.bench.kit.results import Metric, Report
from tests.bench.kit.scale import Scale, tell
from tests.bench.kit.seed import Batch

_DEADLINE_SECONDS = 120.0
_HOUR = 3600.0
_SETTLE_SECONDS = 3.0


def run(lab: Lab, scale: Scale) -> Report:
    seconds = 3.0 if scale.quick else 60.0
    images = scale.count(10_000, 100)
    report = Report(
        "idle",
        f"Idle: an agent with {images:,} images that wait, for {seconds:.0f} s",
        metrics=(
            Metric("cpu", "CPU s/hour", 1),
            Metric("wakes", "wake-ups/s", 1),
            Metric("queries", "statements/hour"),
            Metric("sweep", "statements/sweep", 1),
            Metric("rss", "resident MB"),
        ),
        notes=[
            "between sweeps; a sweep of what changed comes each 60 s unless configured otherwise",
            "statements are what the server counts; those of the counting itself are taken off",
        ],
    )
    for database in lab.databases:
        site = lab.site(database)
        for turn in scale.turns:
            tell(f"{database}, round {turn + 1}")
            report.add(database, "evscrub", **_measure(site, images, seconds))
        medians = [
            report.median(database, "evscrub", key) or 0.0 for key in ("cpu", "wakes", "rss")
        ]
        report.goals.append(
            f"{database}: 8 CPU s/hour, under 3 wake-ups/s, 80 MB: "
            + ", ".join(f"{median:.1f}" for median in medians)
        )
    return report


def _measure(site: Site, images: int, seconds: float) -> dict[str, float]:
    site.lay(Batch(images, age_seconds=10.0), files=False)
    quiet: Options = {"DEFAULT": {"scrub_time": 3600}, "sweep": {"interval": 3600}}
    with _agent(site, site.agent_config(quiet)) as peer:
        peer.hears("begin", _DEADLINE_SECONDS)
        time.sleep(_SETTLE_SECONDS)  # the first sweep, and joining the bus
        cpu, wakes, statements = cpu_seconds(peer.pid), wake_ups(peer.pid), _statements(site)
        own = _statements(site) - statements
        time.sleep(seconds)
        statements = _statements(site) - statements - 2 * own
        cpu, wakes = cpu_seconds(peer.pid) - cpu, wake_ups(peer.pid) - wakes
        rss = rss_bytes(peer.pid)
    # A sweep each second tells what one takes, beside what there is anyway.
    often: Options = {**quiet, "sweep": {"interval": 1}}
    with _agent(site, site.agent_config(often)) as peer:
        peer.hears("begin", _DEADLINE_SECONDS)
        time.sleep(_SETTLE_SECONDS)
        before = _statements(site)
        time.sleep(seconds)
        swept = (_statements(site) - before - own) / seconds
    return {
        "cpu": cpu / seconds * _HOUR,
        "wakes": wakes / seconds,
        "queries": max(0.0, statements / seconds * _HOUR),
        "sweep": swept,
        "rss": rss / 1e6,
    }


def _agent(site: Site, path: Path) -> Peer:
    return Peer("agent", ("--config-file", path), site.directory / "agent.log")


def _statements(site: Site) -> float:
    """How many statements, or with PostgreSQL transactions, the server has run so far."""
    query = "SHOW GLOBAL STATUS LIKE 'Questions'"
    if site.engine.dialect.name == "postgresql":
        query = (
            "SELECT datname, xact_commit + xact_rollback FROM pg_stat_database"
            " WHERE datname = current_database()"
        )
    with site.engine.connect() as connection:
        return float(connection.execute(sa.text(query)).one()[1])
