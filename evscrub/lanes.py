# SPDX-License-Identifier: Apache-2.0
"""All lanes: makes them, tunes them, and carries out what an answer changes about one."""

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from oslo_log import log as logging

from evscrub.breaker import Breaker, State
from evscrub.clock import Clock
from evscrub.lane import STALL_SECONDS, Change, Lane
from evscrub.limits import RateLimit
from evscrub.pace import Pace
from evscrub.settings import Settings
from evscrub.verdict import GONE, Verdict
from evscrub.work import Work

LOG = logging.getLogger(__name__)

#: How long the last "not found" waits for something that tells if the store can be believed.
SUSPECT_SECONDS = 3.0
_IDLE_SECONDS = 60.0


class Lanes:
    """The lanes by store.

    :param stores: the stores that data may be deleted from.
    :param go_on: takes work that a lane is done with.
    :param end: takes work that goes no further, to be settled.
    """

    def __init__(
        self,
        settings: Settings,
        stores: Iterable[str],
        clock: Clock,
        go_on: Callable[[Work], None],
        end: Callable[[Work], None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._go_on = go_on
        self._end = end
        self._rate = RateLimit(settings.rate, settings.burst)
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
            breaker = Breaker(self._settings.not_found_limit_of(store), random.uniform)
            lane = self._lanes[store] = Lane(store, pace, breaker)
            self._rates[store] = RateLimit(pace.rate, self._settings.burst)
        return lane

    @property
    def running(self) -> int:
        """How many workers there are."""
        return sum(lane.running for lane in self)

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
        """Apply changed options, and give stores that are paused another chance.

        What a store did not have before that, it is asked for again.
        """
        self._settings = settings
        self._rate.change(settings.rate, settings.burst)
        for lane in self:
            lane.pace.allow(*settings.allowed(lane.name))
            lane.breaker.not_found_limit = settings.not_found_limit_of(lane.name)
            lane.breaker.reset(self._clock.boot())
            self.doubt_suspects(lane)
            self._rates[lane.name].change(lane.pace.rate, settings.burst)

    def answered(self, lane: Lane, work: Work, verdict: Verdict) -> None:
        """Let a lane follow what its store answered."""
        if lane.is_outdated(verdict, work.tried_at):
            return
        change = lane.answered(verdict, work.claim.kind, self._clock.boot())
        self._rates[lane.name].follow(lane.pace.rate)
        if verdict == GONE:
            # The store has what is in it, so what it has not is gone.
            self._believe_suspects(lane)
        if lane.is_shut(self._clock.boot()):
            self._end_all(lane.backlog)
        if change is None:
            return
        _tell(lane, change)
        if change is Change.BLOWN:
            work.doubt()
            self.doubt_suspects(lane)

    def keeps(self, lane: Lane, work: Work) -> bool:
        """Keep work back that a store says it has not the data of; returns whether it is kept."""
        if not work.doubted:
            return False
        breaker = lane.breaker
        outdated = breaker.state is State.BLOWN or work.tried_at < breaker.reset_at
        if breaker.not_found_limit and outdated:
            work.doubt()
            return False
        if not breaker.doubts(work.claim.kind):
            work.believe()
            return False
        work.suspect_since = self._clock.boot()
        lane.suspects.append(work)
        return True

    def next_look(self) -> float:
        """Believe stores whose "not found" was not followed by more of them.

        :returns: seconds until that, a probe, or another worker where there are few, is due next.
        """
        now = self._clock.boot()
        pause = _IDLE_SECONDS
        for lane in self:
            if lane.suspects:
                # All wait for the last: those of a slow store come one after another.
                believed_at = lane.suspects[-1].suspect_since + SUSPECT_SECONDS
                if now >= believed_at:
                    self._believe_suspects(lane)
                    pause = 0.0  # they may go on in another lane
                else:
                    pause = min(pause, believed_at - now)
            if lane.backlog and lane.running:
                pause = min(pause, STALL_SECONDS)
            if lane.breaker.state is State.OPEN:
                pause = min(pause, lane.breaker.opened_until - now)
        return max(0.01, pause)

    def release(self) -> None:
        """Let go of all that is claimed and not begun; nobody waits for a turn any more."""
        self._rate.change(0, 1)
        for lane in self:
            self._rates[lane.name].change(0, 1)
            self._end_all(lane.backlog)
            self.doubt_suspects(lane)

    def _believe_suspects(self, lane: Lane) -> None:
        while lane.suspects:
            work = lane.suspects.popleft()
            work.believe()
            self._go_on(work)

    def doubt_suspects(self, lane: Lane) -> None:
        """Keep the images pending whose data was not found."""
        for work in lane.suspects:
            work.doubt()
        self._end_all(lane.suspects)

    def _end_all(self, works: deque[Work]) -> None:
        with suppress(IndexError):  # a worker's thread may take the last of a backlog
            while works:
                self._end(works.popleft())


def _tell(lane: Lane, change: Change) -> None:
    """Log a change of state; what goes on in between is counted, not logged."""
    match change:
        case Change.SLOWED:
            LOG.info(
                "Store %s is overloaded: slowed to %d at a time and %.1f a second",
                lane.name,
                lane.pace.concurrent,
                lane.pace.rate,
            )
        case Change.RECOVERED:
            LOG.info("Store %s is at its full pace again", lane.name)
        case Change.OPENED:
            LOG.warning(
                "Store %s does not work (%s): its images wait, and it is probed now and then",
                lane.name,
                lane.breaker.reason,
            )
        case Change.CLOSED:
            LOG.info("Store %s works again", lane.name)
        case Change.BLOWN:
            LOG.error(
                "Store %s is paused: %s. Is it mounted, is the bucket the right one? Nothing more"
                " is deleted in it, and these images stay pending. Mend it and send the agents"
                " SIGHUP; if the data is really gone, add %s to [scrubber] acknowledged_stores"
                " first",
                lane.name,
                lane.breaker.reason,
                lane.name,
            )
