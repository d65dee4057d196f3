# SPDX-License-Identifier: Apache-2.0
"""One look at what takes a while to look at: all that waits, all in work, all in trouble."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import nlargest

from evscrub.domain.verdict import Outcome
from evscrub.queueing.delay_queue import QueueStatistics
from evscrub.status.forecast import Forecast, forecast
from evscrub.status.sources import Sources
from evscrub.telemetry.statistics import Trouble

#: Images of each kind that are named; of the others only the number is shown.
SHOWN = 100


@dataclass(frozen=True, slots=True)
class Group:
    """Images in trouble for the same reason."""

    store: str
    reason: str
    outcome: Outcome
    parked: bool


@dataclass(frozen=True, slots=True)
class InWork:
    """Images whose first delete has begun and whose end is not in the registry yet."""

    images: int
    total_seconds: float
    longest_seconds: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An agent at one moment.

    :param now: by the database's clock, seconds since the epoch.
    :param oldest_due: since when the image waits that has been due longest; None without any.
    :param troubles: numbers of images in trouble.
    :param parked: some of those parked, by id.
    :param in_use: some of those that clones or snapshots keep, by id.
    """

    now: float
    queue: QueueStatistics
    oldest_due: float | None
    forecast: Forecast
    in_work: InWork
    troubles: Counter[Group]
    parked: Mapping[str, Trouble]
    in_use: Mapping[str, Trouble]

    @property
    def oldest_due_age(self) -> float:
        """How long the image waits that has been due longest, seconds; 0 without any."""
        return 0.0 if self.oldest_due is None else max(0.0, self.now - self.oldest_due)


def take(sources: Sources) -> Snapshot:
    """Look."""
    now = sources.database_clock.now()
    works = list(sources.scrubber.leases.works.values())
    oldest = [work.ready_at for work in works]
    ready = sources.queue.oldest_ready()
    if ready is not None:
        oldest.append(ready)
    begun = [now - work.begun_at for work in works if work.begun_at is not None]
    troubles = sources.scrubber.record.troubles
    groups = Counter(_group(trouble) for trouble in troubles.values())
    parked = ((key, t) for key, t in troubles.items() if t.parked)
    in_use = ((key, t) for key, t in troubles.items() if t.verdict.outcome is Outcome.IN_USE)
    return Snapshot(
        now=now,
        queue=sources.queue.statistics(),
        oldest_due=min(oldest, default=None),
        forecast=forecast(sources.queue, now),
        in_work=InWork(len(begun), sum(begun), max(begun, default=0.0)),
        troubles=groups,
        parked=dict(nlargest(SHOWN, parked, key=_tries)),
        in_use=dict(nlargest(SHOWN, in_use, key=_tries)),
    )


def _group(trouble: Trouble) -> Group:
    verdict = trouble.verdict
    return Group(trouble.store, verdict.reason, verdict.outcome, trouble.parked)


def _tries(item: tuple[str, Trouble]) -> int:
    return item[1].tries
