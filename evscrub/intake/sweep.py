# SPDX-License-Identifier: Apache-2.0
"""Queue images that the bus did not announce, by reading the registry.

A full sweep at start and every ``[sweep] full_interval`` reads all pending images; the sweeps
between read only what changed since the last one. From the queue on, these images are handled like
those from the bus.
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

#: How long after its due time a sweep queues an image that is not due yet. The agent that received
#: its event scrubs it first.
HEAD_START_SECONDS = 1.0
#: How far before the last sweep the next one starts, because the clocks of Glance's hosts differ
#: and claims expire.
_OVERLAP_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class SweepReport:
    """Describe a finished sweep.

    :param full: whether it read all pending images.
    :param found: images in the range of the sweep that are waiting, due or left by a dead agent.
    :param added: how many of them were new to the queue.
    :param seconds: how long it took.
    """

    full: bool
    found: int
    added: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SweepStatistics:
    """What sweeps did since the agent started.

    :param count: number of finished sweeps.
    :param added: number of images that they queued.
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
    """Read pages of the registry into the queue.

    :param on_added: called when images were queued.
    :param on_full: called before each full sweep.
    :param uniform: draws a random number between two, for jitter.
    :param new_id: draws the random id at which a full sweep starts.
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
        """Apply changed options, with a full sweep, because they may make other images due."""
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
                LOG.exception("The sweep failed; retrying in %.0f s", RETRY_SECONDS)
                self._failing = True
                pause = RETRY_SECONDS
            else:
                self._failing = False
                pause = self._settings.interval * self._uniform(0.9, 1.1)
                pause = min(pause, max(0.0, self._full_due - self._clock.boot()) + 1.0)
            with anyio.move_on_after(pause):
                await self._changed.wait()

    async def once(self) -> SweepReport:
        """Sweep once, in full if a full sweep is due.

        :raises RegistryAwayError: the registry cannot be read now.
        """
        settings = self._settings
        began = self._clock.moment()
        now = await self._calls.call(self._pages.now)
        self._database_clock.observe(now, began)
        full = self._swept_until is None or self._clock.boot() >= self._full_due
        horizon = timedelta(seconds=settings.horizon_seconds)
        window = Window(
            deleted_before=now - settings.policy.scrub_time + horizon,
            stale_before=now - settings.policy.claim_timeout,
            # Agents start at different ids, so that they find different images first.
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
            # Find the images that the full queue dropped before they are due.
            ahead = self._queue.dropped_due - self._database_clock.now() - settings.interval
            self._full_due = min(self._full_due, self._clock.boot() + max(settings.interval, ahead))
        report = SweepReport(full, found, added, self._clock.since(began))
        self._last, self._last_at = report, self._clock.wall()
        self._added += added
        self._count += 1
        LOG.log(
            logging.INFO if added or full else logging.DEBUG,
            "Sweep (%s) found %s, %d of them new, in %.2f s",
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
                continue  # and keep its due time: it may be waiting for a retry
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
