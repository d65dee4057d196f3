# SPDX-License-Identifier: Apache-2.0
"""Lateness: from when an image is due to when its data is gone, in a steady stream of deletes."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tests.bench.kit import seed
from tests.bench.kit.bus import Bus, connect
from tests.bench.kit.lab import Lab, Site
from tests.bench.kit.processes import Peer
from tests.bench.kit.results import Lines, Metric, Report, percentile
from tests.bench.kit.scale import Scale, tell

_SCRUB_SECONDS = 5
_WAKEUP_SECONDS = 300
_GRACE_SECONDS = 120.0
_GOAL_MS = {"mariadb": 100, "postgresql": 50}
_STARTING_SECONDS = 2.0
STARTED = f"evscrub, {_STARTING_SECONDS:.0f} s after its first"
POLLER = "a poller each 300 s"


class Deleter:
    """Does to the registry what Glance's DELETE does, and tells by the bus."""

    def __init__(self, site: Site, bus: Bus) -> None:
        self._bus = bus
        self._connection: Any = site.engine.raw_connection()
        self._cursor = self._connection.cursor()
        postgresql = site.engine.dialect.name == "postgresql"
        self._clock = "timezone('UTC', clock_timestamp())" if postgresql else "UTC_TIMESTAMP(6)"
        self._true = "true" if postgresql else "1"

    def close(self) -> None:
        self._connection.close()

    def revive(self) -> None:
        """Make all images active, as they were before somebody deleted them."""
        false = "false" if self._true == "true" else "0"
        for table in ("images", "image_locations"):
            self._cursor.execute(
                f"UPDATE {table} SET status = 'active', deleted = {false}, deleted_at = NULL"
            )
        self._connection.commit()

    def delete(self, number: int) -> datetime:
        """Mark the image as Glance does; returns when that was."""
        for table, column in (("image_locations", "image_id"), ("images", "id")):
            self._cursor.execute(
                f"UPDATE {table} SET status = 'pending_delete', deleted = {self._true},"
                f" deleted_at = {self._clock}, updated_at = {self._clock} WHERE {column} = %s",
                (seed.image_id(number),),
            )
        self._connection.commit()
        return datetime.now(UTC)


def run(lab: Lab, scale: Scale) -> Report:
    rate, seconds = 100.0, 3.0 if scale.quick else 30.0
    report = Report(
        "lateness",
        f"Lateness: {rate:.0f} deletes a second through RabbitMQ, scrub_time {_SCRUB_SECONDS} s",
        metrics=(
            Metric("p50", "p50 ms"),
            Metric("p99", "p99 ms"),
            Metric("max", "max ms"),
            Metric("deletes", "deletes/s", 1),
        ),
        notes=[
            (
                "late is the time from deleted_at in the registry and scrub_time to the last"
                " location's end, as the agent itself measures it"
            ),
            (
                "MariaDB's DATETIME cuts deleted_at to a whole second, so there all images of a"
                " second fall due at the same moment; PostgreSQL keeps microseconds"
            ),
            (
                "an agent's first claims open connections, compile statements and read what shares"
                " data; the second row is without the first images"
            ),
            f"{POLLER} is late by anything up to that, by construction, and by its work on top",
        ],
    )
    curves: dict[str, Sequence[tuple[float, float]]] = {}
    for database in lab.databases:
        for turn in scale.turns:
            tell(f"{database}, round {turn + 1}: {rate:.0f} a second for {seconds:.0f} s")
            late, achieved = _late(lab, lab.site(database), rate, round(rate * seconds))
            report.add(database, "evscrub", **_spread(late), deletes=achieved)
            report.add(database, STARTED, **_spread(late[round(rate * _STARTING_SECONDS) :]))
            curves[f"evscrub, {database}"] = _cumulative(late)
        chance = random.Random(1)
        polled = [chance.uniform(0, _WAKEUP_SECONDS) for _ in range(10_000)]
        report.add(database, POLLER, **_spread(polled))
        curves[POLLER] = _cumulative(polled)
        p99, started = (
            report.median(database, peer, "p99") or 0.0 for peer in ("evscrub", STARTED)
        )
        report.goals.append(
            f"{database}: p99 at most {_GOAL_MS[database]} ms: {p99:.0f} ms; once the agent has"
            f" started: {started:.0f} ms"
        )
    report.charts = [
        Lines(
            "How late data is gone",
            "ms after it was due",
            "% of images",
            curves,
            x_logarithmic=True,
        )
    ]
    return report


def _spread(late: Sequence[float]) -> dict[str, float]:
    return {
        "p50": percentile(late, 0.5) * 1000,
        "p99": percentile(late, 0.99) * 1000,
        "max": max(late) * 1000,
    }


def _cumulative(late: Sequence[float]) -> list[tuple[float, float]]:
    ordered = sorted(late)
    step = max(1, len(ordered) // 500)
    return [
        (max(at * 1000, 0.1), (number + 1) / len(ordered) * 100)
        for number, at in enumerate(ordered)
        if number % step == 0 or number == len(ordered) - 1
    ]


def _late(lab: Lab, site: Site, rate: float, images: int) -> tuple[list[float], float]:
    """Return how late each image was, and how many a second were deleted."""
    batch = seed.Batch(images)
    site.lay(batch)
    path = site.agent_config({"DEFAULT": {"scrub_time": _SCRUB_SECONDS}})
    log = site.directory / "late.json"
    arguments = ("--config-file", path, "--images", images, "--late", log, "--no-sweep")
    with connect(lab.rabbitmq) as bus:
        bus.clear()
        deleter = Deleter(site, bus)
        deleter.revive()
        with Peer("agent", arguments, site.directory / "agent.log") as peer:
            peer.hears("begin", _GRACE_SECONDS)
            seconds = bus.publish_at(rate, batch.numbers, deleter.delete)
            deleter.close()
            peer.hears("end", _GRACE_SECONDS)
            peer.hears("left", _GRACE_SECONDS)
    late: list[float] = json.loads(log.read_text())
    return late, images / seconds
