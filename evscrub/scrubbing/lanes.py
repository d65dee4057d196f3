# SPDX-License-Identifier: Apache-2.0
"""All lanes: makes them, tunes them, and carries out what an answer changes about one."""

import math
import random
from collections.abc import Callable, Iterable, Iterator

from evscrub.config.settings import Settings
from evscrub.domain.clock import Clock
from evscrub.domain.evidence import Origin, Scope
from evscrub.domain.verdict import FINISHED, GONE, Verdict
from evscrub.flow_control.adaptive_limit import Pace
from evscrub.flow_control.circuit_breaker import State
from evscrub.flow_control.health import Event, Health
from evscrub.flow_control.rate_limit import RateLimit
from evscrub.queueing.delay_queue import DelayQueue
from evscrub.scrubbing.job import Work
from evscrub.scrubbing.lane import STALL_SECONDS, Again, Lane, LaneStatistics
from evscrub.scrubbing.lane_messages import tell
from evscrub.scrubbing.slots import Slots

_IDLE_SECONDS = 60.0


class Lanes:
    """The lanes by store.

    :param stores: the stores that data may be deleted from.
    :param end: takes work that goes no further, to be settled.
    """

    def __init__(
        self,
        settings: Settings,
        stores: Iterable[str],
        clock: Clock,
        end: Callable[[Work], None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._end = end
        self._rate = RateLimit(settings.rate, settings.burst)
        self._slots = Slots(settings.concurrency)
        self._lanes: dict[str, Lane] = {}
        self._rates: dict[str, RateLimit] = {}
        for store in stores:
            self.of(store)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def of(self, store: str) -> Lane:
        """The lane of a store."""
        lane = self._lanes.get(store)
        if lane is None:
            pace = Pace(*self._settings.allowed(store))
            lane = self._lanes[store] = Lane(
                store,
                Health(pace, random.uniform),
                self._slots,
                not_found_limit=self._settings.not_found_limit_of(store),
            )
            self._rates[store] = RateLimit(pace.rate, self._settings.burst)
        return lane

    def statistics(self, queue: DelayQueue) -> tuple[LaneStatistics, ...]:
        """Return each lane as it is.

        :param queue: has the ready images.
        """
        return tuple(lane.statistics(_ready(queue, lane)) for lane in self)

    @property
    def running(self) -> int:
        """How many workers there are."""
        return self._slots.taken

    def next_to_begin(self, now: float) -> Lane | None:
        """Choose the lane whose next claimed image may begin; None while no slot is free.

        The lane with the fewest in work is first. A slot is kept for each other store that has
        nothing in work, at most half of all, so that a store that hangs never has all of them.
        """
        free = self._settings.concurrency - self.running
        able = [lane for lane in self if lane.may_begin(now)] if free > 0 else []
        if not able:
            return None
        chosen = min(able, key=lambda lane: lane.running)
        idle = sum(not lane.running and not lane.is_shut(now) for lane in self if lane.name)
        kept = min(idle, self._settings.concurrency // 2) if chosen.running else 0
        return chosen if free > kept else None

    async def turns(self, lane: Lane) -> float:
        """Wait until the lane's rate, and that of all together, allow one more request.

        :returns: how many requests they allow: more than one where several turns are ready and a
            worker has a use for them; infinite without a rate.
        """
        if not lane.pace.rate and not self._settings.rate:
            return math.inf
        limits = self._rates[lane.name], self._rate
        lane.waiting += 1
        try:
            for limit in limits:
                await limit.acquire()
        finally:
            lane.waiting -= 1
        count, most = 1, 1 + lane.turns_worth_taking
        while count < most and all(limit.ready for limit in limits):
            for limit in limits:
                limit.take_ready()
            count += 1
        return count

    def change(self, settings: Settings) -> None:
        """Apply changed options, and ask stores again that are paused."""
        self._settings = settings
        self._slots.total = settings.concurrency
        self._rate.change(settings.rate, settings.burst)
        for lane in self:
            lane.pace.allow(*settings.allowed(lane.name))
            lane.missing.limit = settings.not_found_limit_of(lane.name)
            lane.missing.clear()
            lane.health.reset()
            lane.reset_at = self._clock.boot()
            self._rates[lane.name].change(lane.pace.rate, settings.burst)

    def make_way(self, lane: Lane) -> None:
        """Let a lane go on for others than the owner who was alone when it was slowed or shut."""
        lane.health.make_way()
        self._rates[lane.name].follow(lane.pace.rate)

    def answered(
        self, lane: Lane, work: Work, verdict: Verdict, part: str = "", began: float = 0.0
    ) -> None:
        """Let a lane follow what its store answered.

        :param part: of the store, that was asked.
        :param began: when it was asked, seconds since boot.
        """
        now = self._clock.boot()
        origin = Origin(work.owner, part, work.first)
        change = lane.answered(verdict, origin, now)
        if verdict is GONE:
            lane.missing.found(part, began)
        elif verdict.outcome not in FINISHED:
            work.first = False
        self._rates[lane.name].follow(lane.pace.rate)
        if change is not None:
            tell(lane, change)
            if change.scope is Scope.OWNER and change.event in {Event.OPENED, Event.REFUSING}:
                self._end_all(lane.drain_owner(change.owner))
        if lane.is_shut(now):
            self._end_all(lane.drain())

    def next_look(self) -> float:
        """Return the seconds until a probe, or another worker where there are few, is due next."""
        now = self._clock.boot()
        pause = _IDLE_SECONDS
        for lane in self:
            if lane.backlog and lane.running:
                pause = min(pause, STALL_SECONDS)
            for breaker in (lane.breaker, *lane.health.shut.values()):
                if breaker.state is State.OPEN:
                    pause = min(pause, breaker.opened_until - now)
        return max(0.01, pause)

    def release(self) -> None:
        """Release all that is claimed and not begun; nobody waits for a turn any more."""
        self._rate.change(0, 1)
        for lane in self:
            self._rates[lane.name].change(0, 1)
            self._end_all(lane.drain())

    def _end_all(self, works: Iterable[Work]) -> None:
        for work in works:
            self._end(work)


def _ready(queue: DelayQueue, lane: Lane) -> int:
    """Return how many images are ready in a lane, at first or again."""
    return queue.ready(lane.name) + queue.ready(Again(lane.name))
