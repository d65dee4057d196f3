# SPDX-License-Identifier: Apache-2.0
"""Scale out: several agents on one registry."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack

import sqlalchemy as sa

from tests.bench.kit.lab import Lab, Site
from tests.bench.kit.processes import Peer, cpu_seconds
from tests.bench.kit.results import Lines, Metric, Ratio, Report
from tests.bench.kit.scale import Scale, tell
from tests.bench.kit.seed import Batch
from tests.bench.peers.saying import GO

_DEADLINE_SECONDS = 600.0
_POLL_SECONDS = 0.05
_SLOW_SECONDS = 0.05
_SLOW_CONCURRENCY = 8


def run(lab: Lab, scale: Scale) -> Report:
    report = Report(
        "scale_out",
        "Scale out: agents that share what a registry has",
        metrics=(
            Metric("rate", "images/s"),
            Metric("cpu", "CPU us/image, all agents"),
            Metric("server", "database CPU us/image"),
            Metric("uneven", "most / fair share", 2),
            Metric("twice", "images scrubbed twice"),
        ),
        ratios=(Ratio("rate", "1", "x one agent"),),
        notes=[
            "MariaDB; the agents begin at the same time, set up, and have the bus and no events",
            (
                "the file store is bound by this machine's processors, which the agents share"
                f" with the database; the slow one takes {_SLOW_SECONDS * 1000:.0f} ms and"
                f" {_SLOW_CONCURRENCY} deletes at a time of each agent, and no processor"
            ),
        ],
    )
    site = lab.site(lab.databases[0])
    agents = (1, 2) if scale.quick else (1, 2, 4, 8)
    for turn in scale.turns:
        for count in agents:
            for case, slow in (("file store", False), ("50 ms store", True)):
                tell(f"round {turn + 1}: {count} agents, {case}")
                images = scale.count(20_000, 300)
                report.add(case, str(count), **_measure(site, count, images, slow=slow))
    curves = {}
    for case in report.cases:
        one = report.median(case, "1", "rate") or 1.0
        curves[case] = [
            (count, (report.median(case, str(count), "rate") or 0.0) / one) for count in agents
        ]
    ideal = "as many times as agents"
    curves[ideal] = [(count, float(count)) for count in agents]
    report.charts = [
        Lines("Several agents on one registry", "agents", "times one agent", curves, ideal=ideal)
    ]
    return report


def _measure(site: Site, agents: int, images: int, *, slow: bool) -> dict[str, float]:
    site.lay(Batch(images), files=not slow)
    options: dict[str, dict[str, object]] = {"DEFAULT": {"scrub_time": 0}}
    arguments: list[object] = ["--config-file", "", "--wait"]
    if slow:
        options["scrubber"] = {"concurrency": _SLOW_CONCURRENCY}
        arguments += ["--delete-seconds", _SLOW_SECONDS]
    arguments[1] = site.agent_config(options)
    with ExitStack() as stack:
        peers = [
            stack.enter_context(Peer("agent", arguments, site.directory / f"agent{number}.log"))
            for number in range(agents)
        ]
        for peer in peers:
            peer.hears("ready", _DEADLINE_SECONDS)
        server = sum(map(cpu_seconds, site.servers))
        for peer in peers:
            peer.signal(GO)
        begins = [peer.hears("begin", _DEADLINE_SECONDS) for peer in peers]
        _wait_until_done(site)
        seconds = time.monotonic() - min(begin["wall"] for begin in begins)
        server = sum(map(cpu_seconds, site.servers)) - server
        for peer in peers:
            peer.signal(signal.SIGTERM)
        ends = [peer.hears("left", _DEADLINE_SECONDS) for peer in peers]
    done = [end["images"] for end in ends]
    return {
        "rate": images / seconds,
        "cpu": (sum(each["cpu"] for each in ends) - sum(each["cpu"] for each in begins))
        / images
        * 1e6,
        "server": server / images * 1e6,
        "uneven": max(done) * agents / images,
        "twice": sum(done) - images,
    }


def _wait_until_done(site: Site) -> None:
    """Wait until no location is pending any more."""
    query = sa.text("SELECT 1 FROM image_locations WHERE status = 'pending_delete' LIMIT 1")
    until = time.monotonic() + _DEADLINE_SECONDS
    with site.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while connection.execute(query).first() is not None:
            if time.monotonic() > until:
                raise TimeoutError("the agents did not finish")
            time.sleep(_POLL_SECONDS)
