# SPDX-License-Identifier: Apache-2.0
"""The content of the page and of ``evscrub list``, as JSON values.

Names that users chose are not escaped: the code that displays them must do that. There are no URLs.
"""

import json
import os
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import anyio.lowlevel

from evscrub import version
from evscrub.domain.verdict import GONE, NOT_FOUND
from evscrub.flow_control.circuit_breaker import State
from evscrub.intake.listener import ListenerStatistics
from evscrub.intake.sweep import SweepStatistics
from evscrub.scrubbing.lane import LaneStatistics
from evscrub.status.group_view import sharing
from evscrub.status.registry_count import Pending, RegistryCount
from evscrub.status.snapshot import STEP_SECONDS, AgentStatistics, Point, Snapshot
from evscrub.telemetry.statistics import (
    ImagesInTrouble,
    RecordStatistics,
    Trouble,
    TroubleState,
    TroubleStatistics,
)

#: Number of latest images to compute percentiles of.
_LATEST = 1000
#: Number of lines of ``/troubles`` in one piece.
_PIECE = 500

Json = dict[str, Any]


def view(
    statistics: AgentStatistics,
    snapshot: Snapshot,
    points: Sequence[Point],
    count: RegistryCount | None,
) -> Json:
    """Return the content of the page.

    :param points: the agent's history, oldest first.
    :param count: the latest count of the registry; None before the first.
    """
    scrubber, troubles = statistics.scrubber, snapshot.troubles
    record, settings = scrubber.record, scrubber.settings
    return {
        "now": snapshot.now,
        "agent": {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": version.version_string_with_package(),
        },
        "queue": _queue(statistics, snapshot),
        "forecast": {
            "start": snapshot.forecast.start,
            "width": snapshot.forecast.width,
            "counts": snapshot.forecast.counts,
        },
        "history": {"step": STEP_SECONDS, "points": [list(point) for point in points]},
        "done": {
            "images": record.scrubbed,
            "finished": sum(record.finished.values()),
            "bytes": sum(record.bytes_reclaimed.values()),
            "retries": record.retries,
            "leases_lost": record.leases_lost,
        },
        "lateness": _lateness(record),
        "stores": [_store(statistics, troubles, lane, count) for lane in scrubber.lanes],
        "parked": _named(troubles.parked, troubles.total(TroubleState.PARKED)),
        "in_use": _named(troubles.in_use, troubles.total(TroubleState.IN_USE)),
        "retrying": [
            {"store": group.store, "reason": group.reason, "images": images}
            for group, images in troubles.of_state(TroubleState.RETRYING).items()
        ],
        "damaged": {
            "total": record.damaged,
            "shown": [{"id": name, "reason": why} for name, why in troubles.damaged.items()],
        },
        "space": None if count is None else _space(count, statistics.at.boot - count.at),
        "bus": _bus(statistics.listener, record.missed_by_bus, statistics.at.wall),
        "sweep": _sweep(statistics.sweep, statistics.at.wall),
        "registry": {
            "answers": not scrubber.registry.is_away,
            "refuses_changes": scrubber.registry.refuses_changes,
            "clock_ahead": statistics.database_clock.skew_seconds,
            "clock_disputed": statistics.database_clock.dispute_seconds,
        },
        "sharing": sharing(statistics),
        "settings": {
            "scrub_time": settings.policy.scrub_time.total_seconds(),
            "claim_timeout": settings.policy.claim_timeout.total_seconds(),
            "horizon": settings.horizon_seconds,
            "concurrency": settings.concurrency,
            "rate": settings.rate,
            "owner_rate": settings.owner_rate,
        },
    }


def _queue(statistics: AgentStatistics, snapshot: Snapshot) -> Json:
    queue, leases = statistics.queue, statistics.scrubber.leases
    return {
        "waiting": snapshot.waiting,
        "awaiting_retry": snapshot.awaiting_retry,
        "ready": queue.ready,
        "taken": queue.taken,
        "in_work": leases.in_work,
        "longest_in_work": leases.longest_seconds,
        "oldest_due_age": snapshot.oldest_due_age,
        "capacity": queue.capacity,
        "dropped": queue.dropped,
    }


def _lateness(record: RecordStatistics) -> Json:
    late = sorted(record.late_seconds[-_LATEST:])
    return {
        "bounds": record.lateness.bounds,
        "counts": record.lateness.counts,
        "latest": len(late),
        "median": late[len(late) // 2] if late else None,
        "p95": late[int(len(late) * 0.95)] if late else None,
        "most": late[-1] if late else None,
    }


def _store(
    statistics: AgentStatistics,
    troubles: TroubleStatistics,
    lane: LaneStatistics,
    count: RegistryCount | None,
) -> Json:
    record, health, pace = statistics.scrubber.record, lane.health, lane.health.pace
    space = None if count is None else count.space
    fault = statistics.store_faults.get(lane.store)
    return {
        "name": lane.store,
        "ready": lane.ready,
        "claimed": lane.claimed,
        "provable": lane.is_provable,
        "running": lane.running,
        "concurrent": pace.concurrent,
        "most_concurrent": pace.most_concurrent,
        "rate": pace.rate,
        "most_rate": pace.most_rate,
        "per_second": pace.per_second,
        "slowed": pace.is_slowed,
        "breaker": health.breaker.value,
        "fault": fault.hint if fault else "",
        "reason": health.reason,
        "owners_stopped": health.owners_stopped,
        "gone": record.outcomes.get((lane.store, GONE.outcome.value, GONE.reason), 0),
        "not_found": record.outcomes.get(
            (lane.store, NOT_FOUND.outcome.value, NOT_FOUND.reason), 0
        ),
        "bytes": record.bytes_reclaimed.get(lane.store, 0),
        "pending_bytes": None if space is None else space.stores.get(lane.store or None, 0),
        "troubled": sum(n for group, n in troubles.groups.items() if group.store == lane.store),
    }


def _named(troubles: Mapping[str, Trouble], total: int) -> Json:
    return {
        "total": total,
        "shown": [{"id": image_id, **_trouble(t)} for image_id, t in troubles.items()],
    }


def _trouble(trouble: Trouble) -> Json:
    return {
        "owner": trouble.owner,
        "store": trouble.store,
        "reason": trouble.verdict.reason,
        "detail": trouble.verdict.hint or trouble.verdict.detail,
        "tries": trouble.tries,
    }


def _space(count: RegistryCount, age_seconds: float) -> Json:
    return {
        "age": age_seconds,
        "total": _pending(count.total),
        "due": count.due,
        "later": count.later,
        "owners": [{"owner": owner, **_pending(pending)} for owner, pending in count.owners],
    }


def _pending(pending: Pending) -> Json:
    return {"images": pending.images, "bytes": pending.size_bytes, "held": pending.held}


def _bus(listener: ListenerStatistics, missed: int, wall: float) -> Json:
    return {
        "joined": listener.joined,
        "received": listener.received,
        "ignored": listener.ignored,
        "malformed": sum(listener.malformed.values()),
        "missed": missed,
        "last_age": None if listener.last_at is None else wall - listener.last_at,
    }


def _sweep(sweep: SweepStatistics, wall: float) -> Json:
    return {
        "count": sweep.count,
        "added": sweep.added,
        "failing": sweep.failing,
        "last_age": None if sweep.last_at is None else wall - sweep.last_at,
        "last_found": None if sweep.last is None else sweep.last.found,
        "last_seconds": None if sweep.last is None else sweep.last.seconds,
    }


def lines(lanes: Iterable[LaneStatistics], images: ImagesInTrouble) -> Iterator[str]:
    """Yield a line of JSON for each store whose breaker is not closed, and for each image."""
    for lane in lanes:
        health = lane.health
        if health.breaker is not State.CLOSED:
            told = {"store": lane.store, "state": health.breaker.value, "reason": health.reason}
            yield json.dumps(told) + "\n"
    for image_id, trouble in images.troubles.items():
        told = {"id": image_id, "state": trouble.state.value, **_trouble(trouble)}
        yield json.dumps(told) + "\n"
    for image_id, reason in images.damaged.items():
        yield json.dumps({"id": image_id, "state": "damaged", "reason": reason}) + "\n"


async def trouble_lines(
    lanes: Iterable[LaneStatistics], images: ImagesInTrouble
) -> AsyncIterator[bytes]:
    """Yield the lines in pieces, with a checkpoint after each full piece."""
    piece: list[str] = []
    for line in lines(lanes, images):
        piece.append(line)
        if len(piece) == _PIECE:
            yield "".join(piece).encode()
            piece = []
            await anyio.lowlevel.checkpoint()
    if piece:
        yield "".join(piece).encode()
