# SPDX-License-Identifier: Apache-2.0
"""All lanes: makes them, tunes them, and carries out what an answer changes about one."""

import math
import random
from collections.abc import Callable, Iterable, Iterator

from oslo_log import log as logging

from evscrub.breaker import State
from evscrub.clock import Clock
from evscrub.delay_queue import DelayQueue
from evscrub.evidence import Origin, Scope
from evscrub.health import Change, Event, Health
from evscrub.lane import STALL_SECONDS, Again, Lane
from evscrub.limits import RateLimit
from evscrub.pace import Pace
from evscrub.settings import Settings
from evscrub.slots import Slots
from evscrub.verdict import FINISHED, GONE, Verdict
from evscrub.work import Work

LOG = logging.getLogger(__name__)

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
            health = Health(pace, self._settings.not_found_limit_of(store), random.uniform)
            lane = self._lanes[store] = Lane(store, health, self._slots)
            self._rates[store] = RateLimit(pace.rate, self._settings.burst)
        return lane

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
        """Apply changed options, and ask stores again that are paused.

        Locations reported missing before that are retried.
        """
        self._settings = settings
        self._slots.total = settings.concurrency
        self._rate.change(settings.rate, settings.burst)
        for lane in self:
            lane.pace.allow(*settings.allowed(lane.name))
            lane.health.fuse.limit = settings.not_found_limit_of(lane.name)
            lane.health.reset()
            lane.reset_at = self._clock.boot()
            self.doubt_suspects(lane)
            self._rates[lane.name].change(lane.pace.rate, settings.burst)

    def make_way(self, lane: Lane) -> None:
        """Let a lane go on for others than the owner who was alone when it was slowed or shut."""
        lane.health.make_way()
        self._rates[lane.name].follow(lane.pace.rate)

    def answered(self, lane: Lane, work: Work, verdict: Verdict, endpoint: str = "") -> None:
        """Let a lane follow what its store answered.

        :param endpoint: the part of the store that was asked.
        """
        if lane.is_outdated(verdict, work.tried_at):
            return
        now = self._clock.boot()
        origin = Origin(work.owner, endpoint, work.claim.kind, work.first, work.missed)
        change = lane.answered(verdict, origin, now)
        if verdict.is_missing:
            work.missed = True
        elif verdict.outcome not in FINISHED:
            work.first = False
        self._rates[lane.name].follow(lane.pace.rate)
        if verdict == GONE:
            # This part of the store has what is in it, so what it has not is gone.
            self._believe(lane, endpoint)
        if change is not None:
            self._apply(lane, work, change)
        if lane.is_shut(now):
            self._end_all(lane.drain())

    def _apply(self, lane: Lane, work: Work, change: Change) -> None:
        """Carry out what an answer changed."""
        _tell(lane, change)
        if change.scope is Scope.OWNER:
            if change.event in {Event.OPENED, Event.REFUSING, Event.BLOWN}:
                self._end_all(lane.drain_owner(change.owner))
            if change.event is Event.BLOWN:
                work.doubt()
                self._doubt(lane, change)
            return
        if change.event is Event.BLOWN:
            work.doubt()
            self.doubt_suspects(lane)

    def keeps(self, lane: Lane, work: Work) -> bool:
        """Hold a work back whose data was not found; returns whether it is held."""
        if not work.doubted:
            return False
        fuse = lane.health.fuse
        if not fuse.limit:
            work.believe()
            return False
        shut = lane.health.shut.get(work.owner)
        blown = State.BLOWN in {lane.breaker.state, shut and shut.state}
        if blown or work.tried_at < lane.reset_at:
            work.doubt()
            return False
        lane.suspects.add(work, self._clock.boot())
        return True

    def next_look(self) -> float:
        """Judge works held back that nothing has proven in time.

        :returns: seconds until that, a probe, or another worker where there are few, is due next.
        """
        now = self._clock.boot()
        pause = _IDLE_SECONDS
        for lane in self:
            for endpoint in lane.suspects.overdue(now):
                self._judge_unproven(lane, endpoint, now)
                pause = 0.0  # they may go on in another lane
            if (due := lane.suspects.next_at()) is not None:
                pause = min(pause, due - now)
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
            self.doubt_suspects(lane)

    def doubt_suspects(self, lane: Lane) -> None:
        """Keep the images pending whose data was not found."""
        self._doubt_all(lane.suspects.take_all())

    def _judge_unproven(self, lane: Lane, endpoint: str, now: float) -> None:
        """Judge what was not found in a part of a store of which no other data was found since.

        A few are gone. Too many pause the store, or their owner in it.
        """
        if not lane.health.fuse.doubts(endpoint):
            self._believe(lane, endpoint)
            return
        works = lane.suspects.take(endpoint)
        for work in works:
            if change := lane.unproven(endpoint, work.owner, now):
                self._apply(lane, work, change)
        self._doubt_all(works)

    def _doubt(self, lane: Lane, change: Change) -> None:
        """Keep one owner's images pending whose data was not found."""
        works = lane.suspects.take_all()
        self._doubt_all(work for work in works if work.owner == change.owner)
        for work in works:
            if work.owner != change.owner:
                lane.suspects.add(work, self._clock.boot())

    def _believe(self, lane: Lane, endpoint: str) -> None:
        for work in lane.suspects.take(endpoint):
            work.believe(endpoint)
            if work.doubted:
                lane.suspects.add(work, self._clock.boot())
            else:
                self._go_on(work)

    def _doubt_all(self, works: Iterable[Work]) -> None:
        for work in works:
            work.doubt()
            self._end(work)

    def _end_all(self, works: Iterable[Work]) -> None:
        for work in works:
            self._end(work)


def ready(queue: DelayQueue, lane: Lane) -> int:
    """Return how many images are ready in a lane, at first or again."""
    return queue.ready(lane.name) + queue.ready(Again(lane.name))


def _tell(lane: Lane, change: Change) -> None:
    """Log a change of state; what goes on in between is counted, not logged."""
    if change.scope is Scope.OWNER:
        _tell_of_owner(lane, change)
        return
    match change.event:
        case Event.SLOWED:
            LOG.info(
                "Store %s is overloaded: slowed to %d at a time and %.1f a second",
                lane.name,
                lane.pace.concurrent,
                lane.pace.rate,
            )
        case Event.RECOVERED:
            LOG.info("Store %s is at its full pace again", lane.name)
        case Event.OPENED:
            LOG.warning(
                "Store %s does not work (%s): its images wait, and it is probed now and then",
                lane.name,
                change.reason,
            )
        case Event.REFUSING:
            LOG.warning(
                "Store %s refuses one image after another (%s): they are tried one at a time."
                " May evscrub's user delete there?",
                lane.name,
                change.reason,
            )
        case Event.CLOSED:
            LOG.info("Store %s works again", lane.name)
        case Event.BLOWN:
            LOG.error(
                "Store %s is paused: %s. Is it mounted, is the bucket the right one? Nothing more"
                " is deleted in it, and these images stay pending. Mend it and send the agents"
                " SIGHUP; if the data is really gone, add %s to [scrubber] acknowledged_stores"
                " first",
                lane.name,
                change.reason,
                lane.name,
            )


def _tell_of_owner(lane: Lane, change: Change) -> None:
    """Log what concerns one owner's images."""
    match change.event:
        case Event.OPENED:
            LOG.warning(
                "Store %s fails for images of project %s (%s): they wait, and one is tried now and"
                " then; those of others go on",
                lane.name,
                change.owner,
                change.reason,
            )
        case Event.REFUSING:
            LOG.warning(
                "Store %s refuses one image of project %s after another (%s): they are tried one"
                " at a time; those of others go on",
                lane.name,
                change.owner,
                change.reason,
            )
        case Event.CLOSED:
            LOG.info("Store %s works again for images of project %s", lane.name, change.owner)
        case Event.BLOWN:
            LOG.error(
                "Images of project %s in store %s are paused: %s. They stay pending until the store"
                " turns out to have another's image in the same place, or you have looked and sent"
                " the agents SIGHUP; if the data is really gone, add %s to [scrubber]"
                " acknowledged_stores first",
                change.owner,
                lane.name,
                change.reason,
                lane.name,
            )
