# SPDX-License-Identifier: Apache-2.0
"""What the page shows, as values that JSON has. Pure.

Names that users chose are in it as they are: whoever shows them escapes them. No URL is.
"""

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from evscrub import version
from evscrub.domain.verdict import GONE, NOT_FOUND
from evscrub.flow_control.circuit_breaker import State
from evscrub.scrubbing.lane import Lane
from evscrub.scrubbing.lanes import ready
from evscrub.status.history import STEP_SECONDS, History
from evscrub.status.snapshot import SHOWN, Snapshot
from evscrub.status.sources import Sources
from evscrub.status.space import Owned, Space
from evscrub.telemetry.statistics import Record, Trouble

#: Of the latest images, for percentiles.
_LATEST = 1000

Json = dict[str, Any]


def view(sources: Sources, snapshot: Snapshot, history: History, space: Space | None) -> Json:
    """Everything that the page shows."""
    scrubber = sources.scrubber
    return {
        "now": snapshot.now,
        "agent": {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": version.version_string_with_package(),
        },
        "queue": _queue(sources, snapshot),
        "forecast": {
            "start": snapshot.forecast.start,
            "width": snapshot.forecast.width,
            "counts": snapshot.forecast.counts,
        },
        "history": {"step": STEP_SECONDS, "points": [list(p) for p in history.points]},
        "done": {
            "images": scrubber.record.scrubbed,
            "finished": scrubber.record.finished.total(),
            "bytes": scrubber.record.bytes_reclaimed.total(),
            "retries": scrubber.record.retries,
            "leases_lost": scrubber.record.leases_lost,
        },
        "lateness": _lateness(scrubber.record),
        "stores": [_lane(sources, snapshot, lane) for lane in scrubber.lanes],
        "parked": _named(snapshot.parked, _total(snapshot, parked=True)),
        "in_use": _named(
            snapshot.in_use,
            sum(n for group, n in snapshot.troubles.items() if group.outcome.value == "in_use"),
        ),
        "retrying": [
            {"store": group.store, "reason": group.reason, "images": count}
            for group, count in snapshot.troubles.most_common()
            if not group.parked
        ],
        "damaged": _damaged(scrubber.record),
        "space": None if space is None else _space(space),
        "bus": _bus(sources),
        "sweep": _sweep(sources),
        "registry": {
            "answers": sources.registry_answers,
            "clock_ahead": sources.database_clock.skew_seconds,
        },
        "settings": {
            "scrub_time": scrubber.settings.policy.scrub_time.total_seconds(),
            "claim_timeout": scrubber.settings.policy.claim_timeout.total_seconds(),
            "horizon": scrubber.settings.horizon_seconds,
            "concurrency": scrubber.settings.concurrency,
            "rate": scrubber.settings.rate,
            "owner_rate": scrubber.settings.owner_rate,
        },
    }


def _queue(sources: Sources, snapshot: Snapshot) -> Json:
    queue = snapshot.queue
    return {
        "waiting": queue.waiting,
        "ready": queue.ready,
        "taken": queue.taken,
        "in_work": snapshot.in_work.images,
        "longest_in_work": snapshot.in_work.longest_seconds,
        "oldest_due_age": snapshot.oldest_due_age,
        "capacity": sources.queue.capacity,
        "dropped": queue.dropped,
    }


def _lateness(record: Record) -> Json:
    late = list(record.late_seconds)[-_LATEST:]
    late.sort()
    return {
        "bounds": record.lateness.bounds,
        "counts": record.lateness.counts,
        "latest": len(late),
        "median": late[len(late) // 2] if late else None,
        "p95": late[int(len(late) * 0.95)] if late else None,
        "most": late[-1] if late else None,
    }


def _lane(sources: Sources, snapshot: Snapshot, lane: Lane) -> Json:
    pace, breaker = lane.pace, lane.breaker
    outcomes = sources.scrubber.record.outcomes
    fault = sources.scrubber.store_faults.get(lane.name)
    return {
        "name": lane.name,
        "ready": ready(sources.queue, lane),
        "claimed": len(lane.backlog),
        "provable": lane.missing.is_provable,
        "running": lane.running,
        "concurrent": pace.concurrent,
        "most_concurrent": pace.most_concurrent,
        "rate": pace.rate,
        "most_rate": pace.most_rate,
        "per_second": pace.per_second,
        "slowed": pace.is_slowed,
        "breaker": breaker.state.value,
        "fault": fault.hint if fault else "",
        "reason": breaker.reason if breaker.state is not State.CLOSED else "",
        "owners_stopped": len(lane.health.shut),
        "gone": outcomes[lane.name, GONE.outcome.value, GONE.reason],
        "not_found": outcomes[lane.name, NOT_FOUND.outcome.value, NOT_FOUND.reason],
        "bytes": sources.scrubber.record.bytes_reclaimed[lane.name],
        "troubled": sum(n for group, n in snapshot.troubles.items() if group.store == lane.name),
    }


def _total(snapshot: Snapshot, *, parked: bool) -> int:
    return sum(count for group, count in snapshot.troubles.items() if group.parked is parked)


def _named(troubles: Mapping[str, Trouble], total: int) -> Json:
    return {
        "total": total,
        "shown": [{"id": image_id, **trouble_view(t)} for image_id, t in troubles.items()],
    }


def trouble_view(trouble: Trouble) -> Json:
    """An image in trouble."""
    return {
        "owner": trouble.owner,
        "store": trouble.store,
        "reason": trouble.verdict.reason,
        "detail": trouble.verdict.hint or trouble.verdict.detail,
        "tries": trouble.tries,
    }


def _damaged(record: Record) -> Json:
    shown = [
        {"id": image_id, "reason": reason}
        for image_id, reason in list(record.damaged.items())[:SHOWN]
    ]
    return {"total": len(record.damaged), "shown": shown}


def _space(space: Space) -> Json:
    return {
        "age": space.age_seconds,
        "total": _owned(space.total),
        "later": space.later,
        "owners": [{"owner": owner, **_owned(owned)} for owner, owned in space.owners],
    }


def _owned(owned: Owned) -> Json:
    return {"images": owned.images, "bytes": owned.size_bytes, "held": owned.held}


def _bus(sources: Sources) -> Json:
    dispatcher = sources.listener.dispatcher
    return {
        "joined": sources.listener.joined,
        "received": dispatcher.received,
        "ignored": dispatcher.ignored,
        "malformed": sum(dict(dispatcher.malformed).values()),
        "missed": sources.scrubber.record.missed_by_bus,
        "last_age": None if dispatcher.last_at is None else time.time() - dispatcher.last_at,
    }


def _sweep(sources: Sources) -> Json:
    sweep = sources.sweep
    return {
        "count": sweep.count,
        "added": sweep.added,
        "failing": sweep.failing,
        "last_age": None if sweep.last_at is None else time.time() - sweep.last_at,
        "last_found": None if sweep.last is None else sweep.last.found,
        "last_seconds": None if sweep.last is None else sweep.last.seconds,
    }
