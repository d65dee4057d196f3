# SPDX-License-Identifier: Apache-2.0
"""The lanes of all stores: creates and configures them, and applies the stores' answers."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial

from oslo_log import log as logging

from evscrub.config.settings import Settings
from evscrub.domain.evidence import Origin, Owner, Scope
from evscrub.domain.proof import Proof, ProofResult
from evscrub.domain.verdict import FINISHED, GONE, UNPROVEN, Verdict, judge
from evscrub.flow_control.adaptive_limit import Pace
from evscrub.flow_control.circuit_breaker import State
from evscrub.flow_control.health import Change, Event, Health
from evscrub.flow_control.rate_limit import RateLimit
from evscrub.flow_control.share import WHOLE
from evscrub.queueing.delay_queue import DelayQueue
from evscrub.scrubbing.batch import Answer, Batch
from evscrub.scrubbing.claiming import Again
from evscrub.scrubbing.context import Context
from evscrub.scrubbing.job import Job
from evscrub.scrubbing.lane import BATCH_SECONDS, STALL_SECONDS, Lane, LaneStatistics
from evscrub.scrubbing.lane_messages import tell
from evscrub.scrubbing.slots import Slots

LOG = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0


class Lanes:
    """The lanes by store.

    :param stores: the stores that data may be deleted from; each gets a lane at once.
    :param queue: holds the ready images.
    """

    def __init__(self, stores: Iterable[str], queue: DelayQueue, context: Context) -> None:
        self._queue = queue
        self._context = context
        settings = context.settings
        self._rate = RateLimit(settings.rate, settings.burst)
        self._slots = Slots(settings.concurrency)
        self._lanes: dict[str, Lane] = {}
        self._rates: dict[str, RateLimit] = {}
        for store in stores:
            self.of(store)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def of(self, store: str) -> Lane:
        """Return the lane of a store, created on first use."""
        lane = self._lanes.get(store)
        if lane is None:
            settings = self._context.settings
            pace = Pace(*settings.allowed(store))
            lane = self._lanes[store] = Lane(
                store,
                Health(pace, self._context.uniform),
                self._slots,
                not_found_limit=settings.not_found_limit_of(store),
                trusts_few_missing=settings.trusts_few_missing,
            )
            self._rates[store] = RateLimit(pace.rate, settings.burst)
        return lane

    def statistics(self) -> tuple[LaneStatistics, ...]:
        """Return the current statistics of each lane."""
        now = self._context.clock.boot()
        return tuple(
            lane.statistics(self._queue.ready(lane.name) + self._queue.ready(Again(lane.name)), now)
            for lane in self
        )

    @property
    def running(self) -> int:
        """Number of workers of all lanes."""
        return self._slots.taken

    def next_batch(self, now: float) -> tuple[Lane, Batch] | None:
        """Return the next batch to start, with its lane; None if no slot is free or no job waits.

        The lane with the fewest workers comes first. One slot is reserved for each other store
        that has no worker, up to half of all slots, so that a store that hangs cannot occupy all.

        :param now: seconds since boot.
        """
        if not self._context.may_begin:
            return None
        concurrency = self._context.settings.concurrency
        free = concurrency - self.running
        able = [lane for lane in self if lane.may_begin(now)] if free > 0 else []
        if not able:
            return None
        chosen = min(able, key=lambda lane: lane.running)
        idle = sum(not lane.running and not lane.is_shut(now) for lane in self if lane.name)
        kept = min(idle, concurrency // 2) if chosen.running else 0
        batch = chosen.begin(now, self._most_turns(chosen)) if free > kept else None
        return None if batch is None else (chosen, batch)

    def _most_turns(self, lane: Lane) -> float:
        """Return the maximum batch size: what the rate limits allow in one batch's time."""
        settings = self._context.settings
        rates = [rate for rate in (settings.rate, lane.pace.rate) if rate]
        return min(settings.burst, max(1, min(rates) * BATCH_SECONDS)) if rates else math.inf

    def has_limits(self, lane: Lane) -> bool:
        """Return whether a rate limit applies to a lane, so that :meth:`turns` has to be called."""
        return bool(self._rate.rate or self._rates[lane.name].rate)

    async def turns(self, lane: Lane, batch: Batch) -> None:
        """Wait until the rate limits, of the lane and of all stores, allow a batch."""
        # The slot comes first, so that no token is spent while waiting for one.
        if limits := [limit for limit in (self._rates[lane.name], self._rate) if limit.rate]:
            lane.waits(batch)
            await self._acquire(limits, batch)
            while batch and not self._context.may_begin:
                await self._context.share.wait()
                await self._acquire(limits, batch)  # turns of an expired share are void
            lane.goes(batch, self._context.clock.boot())
            self._context.wakeup.set()

    async def _acquire(self, limits: Iterable[RateLimit], batch: Batch) -> None:
        for limit in limits:
            got = 0
            while got < len(batch):  # which gets shorter where the lane takes jobs back
                await limit.acquire()
                got += 1

    def share(self, settings: Settings) -> None:
        """Apply the limits of another share; buckets start empty, for others may have used it."""
        self._slots.total = settings.concurrency
        self._rate.follow(settings.rate, settings.burst)
        for lane in self:
            lane.pace.allow(*settings.allowed(lane.name))
            self._rates[lane.name].follow(lane.pace.rate, settings.burst)
        self._hold_back()

    @property
    def keeps_limits(self) -> bool:
        """Whether no more deletes run than are allowed; more do after a limit was lowered."""
        return self.running <= self._slots.total and all(
            lane.running <= lane.pace.most_concurrent for lane in self
        )

    def change(self, settings: Settings) -> None:
        """Apply changed options and resume paused stores."""
        # Full buckets of all agents of a group would be more than the burst.
        change = RateLimit.change if self._context.share.part == WHOLE else RateLimit.follow
        self._slots.total = settings.concurrency
        change(self._rate, settings.rate, settings.burst)
        for lane in self:
            lane.pace.allow(*settings.allowed(lane.name))
            lane.missing.change(settings.not_found_limit_of(lane.name))
            if lane.health.reset():
                lane.missing.clear()
            lane.reset_at = self._context.clock.boot()
            change(self._rates[lane.name], lane.pace.rate, settings.burst)
        self._hold_back()

    def _hold_back(self) -> None:
        """Return the jobs that have not started to the backlogs if more run than are allowed."""
        if not self.keeps_limits:
            for lane in self:
                lane.slow_down()

    def make_way(self, lane: Lane) -> None:
        """Undo limits of a lane that were based on one owner only.

        See :meth:`evscrub.flow_control.health.Health.make_way`.
        """
        lane.health.make_way()
        self._rates[lane.name].follow(lane.pace.rate)

    def apply(self, lane: Lane, answer: Answer, proofs: Mapping[str, Proof]) -> list[Job]:
        """Judge the location that was deleted, and update its lane's limits and health.

        :param proofs: proofs by endpoint, for the parts of the store that reported data missing.
        :returns: other jobs that this answer removed from the lane, to be settled.
        """
        job, defect = answer.job, answer.defect
        if defect is None and answer.verdict is not None:
            try:
                return self._judge(lane, answer, answer.verdict, proofs)
            except Exception as error:  # noqa: BLE001 - it concerns this image only
                defect = error
        if defect is not None:
            LOG.error("Cannot process image %s", job.image_id, exc_info=defect)
            job.give_up((lane.name, judge(defect, "")))
        return []

    def _judge(
        self, lane: Lane, answer: Answer, verdict: Verdict, proofs: Mapping[str, Proof]
    ) -> list[Job]:
        now = self._context.clock.boot()
        job, location = answer.job, answer.location
        part = "" if location.target is None else location.target.endpoint
        lane.took(answer.ended - answer.began)
        if lane.may_mislead(answer.began, verdict):
            job.judge(location, lane.name, UNPROVEN, answer.ended_at)
            return lane.drain() if lane.is_shut(now) else []
        meaning = lane.effective_verdict(verdict)
        if verdict.is_missing:
            proof = proofs.get(part, Proof(ProofResult.UNKNOWN))
            unjudged = self._queue.ready(lane.name) + lane.claiming.images + lane.unjudged
            meaning = lane.missing.judge(
                proof,
                part,
                job.owner,
                job.image_id,
                now,
                row_id=min(location.ids),
                unjudged=unjudged,
            )
        job.judge(location, lane.name, meaning, answer.ended_at)
        change = lane.answered(meaning, Origin(job.owner, part, job.first), now)
        if meaning is GONE and lane.breaker.state is not State.FORCED_OPEN:
            lane.missing.found(part, job.owner, job.image_id, answer.began)
        elif meaning.outcome not in FINISHED:
            job.first = False
        self._rates[lane.name].follow(lane.pace.rate)
        released = [] if change is None else self._follow(lane, change)
        return released + (lane.drain() if lane.is_shut(now) else [])

    def _follow(self, lane: Lane, change: Change) -> list[Job]:
        """Log a change and return the jobs that it stops."""
        tell(lane, change)
        if change.event in {Event.SLOWED, Event.OPENED, Event.REFUSING}:
            lane.slow_down()
        if change.scope is Scope.OWNER and change.event in {Event.OPENED, Event.REFUSING}:
            return lane.drain_owner(change.owner)
        return []

    def unblock(self, now: float) -> None:
        """Return jobs behind stalled deletes to the backlogs.

        :param now: seconds since boot.
        """
        for lane in self:
            lane.unblock(now)

    def close_idle_breakers(self, jobs: Collection[Job]) -> None:
        """Close the breakers of stores and owners that have no image left to probe with.

        :param jobs: all jobs that are not settled.
        """
        now = self._context.clock.boot()
        for lane in self:
            if lane.breaker.state is State.CLOSED and not lane.health.shut:
                continue
            has_image = partial(self._has_image_of, lane, jobs)
            for change in lane.health.close_idle(
                now, has_image, partial(self._is_idle, lane, jobs)
            ):
                tell(lane, change)

    def _has_image_of(self, lane: Lane, jobs: Iterable[Job], owner: Owner) -> bool:
        """Return whether an image of an owner failed in the store or is claimed."""
        return (
            owner in self._context.record.owners_failing(lane.name)
            or bool(lane.claiming.images_of(owner))
            or any(job.owner == owner and lane.name in job.stores for job in jobs)
        )

    def _is_idle(self, lane: Lane, jobs: Iterable[Job]) -> bool:
        """Return whether no image of a store failed, is ready or is claimed."""
        return not (
            self._context.record.owners_failing(lane.name)
            or self._queue.ready(lane.name)
            or lane.claiming.count
            or any(lane.name in job.stores for job in jobs)
        )

    def next_look(self) -> float:
        """Return the seconds until a probe is due or a delete may have stalled, at most 60."""
        now = self._context.clock.boot()
        pause = _IDLE_SECONDS
        for lane in self:
            if lane.may_be_blocked:
                pause = min(pause, STALL_SECONDS)
            for breaker in (lane.breaker, *lane.health.shut.values()):
                if breaker.state_at(now) is State.OPEN:
                    pause = min(pause, breaker.opened_until - now)
        return max(0.01, pause)

    def release(self) -> list[Job]:
        """Remove and return all jobs that have not started; lifts the rate limits for the rest."""
        self._rate.change(0, 1)
        for limit in self._rates.values():
            limit.change(0, 1)
        return self.drain()

    def drain(self) -> list[Job]:
        """Remove and return all jobs that have not started."""
        return [job for lane in self for job in lane.drain()]
