# SPDX-License-Identifier: Apache-2.0
"""The sweep: puts into the queue what the registry has and the bus did not bring.

At start and every full interval it goes through the whole registry, and in between through what
changed since the last time. What it finds takes the same way as what comes by the bus.
"""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import anyio
from oslo_log import log as logging

from evscrub.config.settings import SweepSettings
from evscrub.domain.clock import Clock, DatabaseClock, epoch
from evscrub.domain.words import count
from evscrub.queueing.delay_queue import Added, DelayQueue, Source
from evscrub.registry.gateway import RETRY_SECONDS, RegistryAwayError, RegistryGateway
from evscrub.registry.pages import Found, Pages, Window

LOG = logging.getLogger(__name__)

#: What is not due yet is left to the agent that has its event for so long after it fell due.
HEAD_START_SECONDS = 1.0
#: How far back a sweep looks beyond the last one: clocks of Glance's hosts differ, claims age.
_OVERLAP_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class SweepReport:
    """One finished sweep."""

    full: bool
    found: int  #: images that the registry has waiting, due or left over, as far as it looked
    added: int  #: those of them that the queue did not know
    seconds: float


@dataclass(frozen=True, slots=True)
class SweepStatistics:
    """What sweeps did since the agent started.

    :param count: finished sweeps.
    :param added: images that they put into the queue.
    :param failing: whether the registry could not be read the last time.
    :param last_at: when the last sweep finished, seconds since the epoch; None before the first.
    :param last: the last sweep; None before the first.
    """

    count: int
    added: int
    failing: bool
    last_at: float | None
    last: SweepReport | None


class Sweep:
    """Reads pages of the registry into the queue.

    :param on_added: called when something was put into the queue.
    :param on_full: called before each full sweep.
    :param uniform: draws a number between two, for jitter.
    :param new_id: draws the id from which a full sweep begins.
    """

    def __init__(
        self,
        queue: DelayQueue,
        pages: Pages,
        calls: RegistryGateway,
        clock: Clock,
        database_clock: DatabaseClock,
        settings: SweepSettings,
        on_added: Callable[[], None],
        on_full: Callable[[], None] = lambda: None,
        uniform: Callable[[float, float], float] = random.uniform,
        new_id: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        self._last: SweepReport | None = None
        self._last_at: float | None = None
        self._added = 0
        self._count = 0
        self._failing = False
        self._queue = queue
        self._pages = pages
        self._calls = calls
        self._clock = clock
        self._database_clock = database_clock
        self._settings = settings
        self._on_added = on_added
        self._on_full = on_full
        self._uniform = uniform
        self._new_id = new_id
        self._swept_until: datetime | None = None
        self._full_due = clock.boot()
        self._changed = anyio.Event()

    def change(self, settings: SweepSettings) -> None:
        """Apply changed options; they need a full sweep, for others may be due, or looked for."""
        if settings != self._settings:
            self._settings = settings
            self._full_due = self._clock.boot()
        self._changed.set()

    def statistics(self) -> SweepStatistics:
        """Return what sweeps did so far."""
        return SweepStatistics(self._count, self._added, self._failing, self._last_at, self._last)

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            self._changed = anyio.Event()
            try:
                await self.once()
            except RegistryAwayError:
                self._failing = True
                pause = RETRY_SECONDS
            except Exception:
                LOG.exception("The sweep failed; trying again in %.0f s", RETRY_SECONDS)
                self._failing = True
                pause = RETRY_SECONDS
            else:
                self._failing = False
                pause = self._settings.interval * self._uniform(0.9, 1.1)
                pause = min(pause, max(0.0, self._full_due - self._clock.boot()) + 1.0)
            with anyio.move_on_after(pause):
                await self._changed.wait()

    async def once(self) -> SweepReport:
        """Sweep one time, in full when that is due."""
        settings = self._settings
        began = self._clock.moment()
        now = await self._calls.call(self._pages.now)
        self._database_clock.observe(now, began)
        full = self._swept_until is None or self._clock.boot() >= self._full_due
        horizon = timedelta(seconds=settings.horizon_seconds)
        window = Window(
            deleted_before=now - settings.policy.scrub_time + horizon,
            stale_before=now - settings.policy.claim_timeout,
            # Several agents begin in different places, so that they share what there is.
            start_at=str(self._new_id()) if full else "",
            changed_since=None if full else self._swept_until,
        )
        if full:
            self._queue.forget_dropped()
            self._on_full()
        pages = self._pages.read(window)
        found = added = 0
        while (page := await self._calls.call(next, pages, None)) is not None:
            found += len(page)
            added += self._take_in(page)
        if full and settings is self._settings:
            self._full_due = self._clock.boot() + settings.full_interval * self._uniform(0.9, 1.0)
        overlap = _OVERLAP_SECONDS + 2 * settings.policy.claim_timeout.total_seconds()
        self._swept_until = now - timedelta(seconds=overlap)
        if self._queue.dropped_due is not None:
            # What was turned away must come back before it is due.
            ahead = self._queue.dropped_due - self._database_clock.now() - settings.interval
            self._full_due = min(self._full_due, self._clock.boot() + max(settings.interval, ahead))
        report = SweepReport(full, found, added, self._clock.since(began))
        self._last, self._last_at = report, self._clock.wall()
        self._added += added
        self._count += 1
        LOG.log(
            logging.INFO if added or full else logging.DEBUG,
            "Sweep (%s) found %s, %d new to the queue, in %.2f s",
            "full" if full else "recent",
            count(found, "image"),
            added,
            report.seconds,
        )
        return report

    def _take_in(self, page: list[Found]) -> int:
        now = self._database_clock.now()
        delay = self._settings.policy.scrub_time.total_seconds()
        added = 0
        for image in page:
            if image.image_id in self._queue:
                continue  # and not sooner than it knows: it may be waiting for its next try
            due = now
            if image.deleted_at is not None:
                due = epoch(image.deleted_at) + delay
                if due > now:
                    due += HEAD_START_SECONDS
            answer = self._queue.add(image.image_id, due, owner=image.owner, source=Source.SWEEP)
            added += answer is Added.NEW
        if added:
            self._on_added()
        return added
