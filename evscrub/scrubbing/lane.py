# SPDX-License-Identifier: Apache-2.0
"""A lane: what one store may be asked for at a time.

It counts and decides, it never waits. The event loop alone uses it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from evscrub.domain.evidence import Origin, Owner
from evscrub.domain.proof import Missing
from evscrub.domain.verdict import GONE, MISSING_BELOW, NOT_FOUND, Verdict
from evscrub.flow_control.adaptive_limit import Pace
from evscrub.flow_control.circuit_breaker import Breaker, State
from evscrub.flow_control.health import NOT_MOUNTED, Change, Health, HealthStatistics
from evscrub.queueing.delay_queue import Taken
from evscrub.queueing.turns import OwnerKey, owner_key
from evscrub.scrubbing.batch import Batch
from evscrub.scrubbing.job import Job
from evscrub.scrubbing.slots import Backlog, Slots

#: How much work is claimed ahead of the workers, so that they do not wait for the database.
_AHEAD_SECONDS = 0.25
#: Claims under way at a time: while one waits for the database, the other computes.
_CLAIMS = 2
_LEAST_YIELD = 0.01
#: Deletes that take less are fast: a way to a thread and back for each would cost more than the
#: delete, and deletes in several threads contend for the GIL.
_FAST_SECONDS = 0.005
#: Fast deletes are handed to a worker so many seconds' worth at a time.
BATCH_SECONDS = 0.05
#: Jobs behind a delete that takes longer go to other workers.
STALL_SECONDS = 0.1
#: EWMA weight of a delete that is slower than the estimate.
_WEIGHT = 0.05


class Again(NamedTuple):
    """The queue's lane of a store's images that failed before: the others are its probes."""

    store: str


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """The lane of a store at one moment.

    :param store: its name; empty for images that no usable store has a location of.
    :param ready: due images that are not claimed, whether they failed before or not.
    :param claimed: images claimed ahead of the workers.
    :param running: workers.
    :param is_provable: whether there was a live image to ask the store for, the last time; None
        before that.
    """

    store: str
    ready: int
    claimed: int
    running: int
    is_provable: bool | None
    health: HealthStatistics


class Lane:
    """Backlog, slots and health of one store.

    :param name: the store; empty for images that no usable store has a location of.
    :param not_found_limit: see :class:`evscrub.domain.proof.Missing`.
    :param all_slots: those of all stores together.
    """

    def __init__(
        self,
        name: str,
        health: Health,
        all_slots: Slots | None = None,
        *,
        not_found_limit: int,
    ) -> None:
        self.name = name
        self.health = health
        self.delete_seconds = 0.0  #: how long a delete takes, lately; 0 before the first
        self.reset_at = float("-inf")  #: when an operator last saw to the store, since boot
        self.batches: set[Batch] = set()  #: one for each worker
        self.waiting = 0  #: jobs that workers have and that wait for a turn at the rates
        self.claims = 0  #: under way
        self.claiming: Counter[OwnerKey] = Counter()  #: images that they ask for
        #: Which part of what was asked for lately was there to claim; little where other agents
        #: go through the same images.
        self.yielded = 1.0
        self.backlog = Backlog()
        self.missing = Missing(not_found_limit)
        self._slots = Slots(health.pace.concurrent)
        self._all_slots = all_slots or Slots(health.pace.concurrent)
        self._waiting_workers = 0
        self._working: dict[Owner, int] = {}  # jobs that workers have
        self._claimed = 0

    @property
    def pace(self) -> Pace:
        return self.health.pace

    @property
    def breaker(self) -> Breaker:
        return self.health.breaker

    @property
    def running(self) -> int:
        """Workers, each with one job, or with several whose deletes are fast."""
        return self._slots.taken

    def statistics(self, ready: int, now: float) -> LaneStatistics:
        """Return the lane as it is.

        :param ready: its due images in the queue.
        :param now: seconds since boot.
        """
        return LaneStatistics(
            self.name,
            ready,
            len(self.backlog),
            self.running,
            self.missing.is_provable,
            self.health.statistics(now),
        )

    # -- claiming

    def claim_size(self, now: float, batch_size: int, rate: float) -> int:
        """Return how many images to claim now; 0 while there is enough claimed to go on with.

        :param now: seconds, for the breaker.
        :param batch_size: the most in one transaction.
        :param rate: deletes a second that all stores together are allowed, 0 for no limit.
        """
        claiming = sum(self.claiming.values())
        probes = self.breaker.lets_through(now, len(self.backlog) + claiming + self.running)
        if probes is not None:
            return probes
        if self.claims == _CLAIMS:
            return 0
        # Images of owners who may not begin another yet hold nobody else back.
        ahead = len(self.backlog) + claiming - sum(map(self.backlog.count, self._held_up()))
        wanted = self._wanted(ahead, batch_size)
        rates = [limit for limit in (rate, self.pace.rate) if limit]
        if rates:
            # What only waits for its turn is better left to other agents, and to other owners.
            turns = max(1, int(min(rates) * _AHEAD_SECONDS))
            wanted = min(wanted, turns - ahead - self.waiting)
        wanted -= ahead
        if wanted <= ahead:
            return 0
        return min(batch_size, wanted if rates else ceil(wanted / self.yielded))

    def _wanted(self, ahead: int, batch_size: int) -> int:
        """How many claimed images to have ahead of the workers."""
        free = max(0, self.pace.concurrent - ahead - self.running)
        return max(free, min(2 * batch_size, int(self.pace.per_second * _AHEAD_SECONDS)))

    def claim_limits(self, now: float, batch_size: int) -> dict[OwnerKey, int]:
        """Return how many images of some owners may be claimed now; of others, any number."""
        limits: dict[OwnerKey, int] = {}
        for owner in self._held_up():
            key = owner_key(owner)
            ahead = self.backlog.count(owner) + self.claiming[key]
            more = self._wanted(0, batch_size) - ahead
            limits[key] = more if more > ahead else 0  # many at a time rather than one by one
        for owner, breaker in self.health.shut.items():
            limits[owner_key(owner)] = breaker.lets_through(now, self._in_flight(owner)) or 0
        return limits

    def claim_order(self) -> tuple[str | Again, str | Again]:
        """Return which of the queue's lanes to claim from first, and what to fill up from.

        Images that failed before come second, and now and then first, so that they come at all; a
        store that is probed gets none of them while there is another.
        """
        first, again = self.name, Again(self.name)
        self._claimed += 1
        if self.breaker.state is State.CLOSED and self._claimed % 4 == 0:
            return again, first
        return first, again

    def claim_begins(self, taken: Sequence[Taken]) -> None:
        """Take in that these images are being claimed."""
        self.claims += 1
        self.claiming.update(image.owner for image in taken)

    def claim_ends(self, taken: Sequence[Taken], got: int) -> None:
        """Take in that a claim of these images got so many."""
        self.claims -= 1
        self.claiming -= Counter(image.owner for image in taken)
        self.yielded = max(_LEAST_YIELD, (self.yielded + got / len(taken)) / 2)

    # -- beginning

    def takes(self, owner: Owner, now: float) -> bool:
        """Return whether a claimed image of an owner may wait here for a worker."""
        if self.is_shut(now):
            return False
        breaker = self.health.shut.get(owner)
        return breaker is None or breaker.lets_through(now, self._in_flight(owner)) != 0

    def push(self, job: Job) -> None:
        """Let a job wait for a worker."""
        self.backlog.push(job)

    def drain(self) -> list[Job]:
        """Take out all jobs that wait, or that a worker has not begun."""
        return self.backlog.drain() + [job for each in self.batches for job in self._undo(each)]

    def drain_owner(self, owner: Owner) -> list[Job]:
        """Take out all jobs of an owner that wait."""
        return self.backlog.drain_owner(owner)

    def may_begin(self, now: float) -> bool:
        """Return whether there is a job that another worker may begin."""
        return (
            bool(self.backlog)
            and self.running < self.pace.concurrent
            and self.breaker.lets_through(now, self.running) != 0
            and self._needs_worker()
            and self.backlog.turn_to(self._has_room)
        )

    def begin(self, now: float, most: float) -> Batch | None:
        """Take the next jobs for another worker, whose slot is given back by :meth:`end`.

        :param now: seconds since boot.
        :param most: how many, at most.
        """
        first = self.backlog.pop(self._has_room)
        if first is None:
            return None
        jobs, wanted = [first], min(most, self._worth_taking())
        while len(jobs) < wanted:
            job = self.backlog.pop(lambda owner: owner == first.owner or self._has_room(owner))
            if job is None:
                break
            jobs.append(job)
        for job in jobs:
            job.start()
            self._working[job.owner] = self._working.get(job.owner, 0) + 1
        self._take_slot(first.owner)
        batch = Batch(jobs, first.owner, now)
        self.batches.add(batch)
        return batch

    def waits(self, batch: Batch) -> None:
        """Take in that a worker waits for its turns at the rates."""
        batch.waits = True
        self.waiting += len(batch)
        self._waiting_workers += 1

    def goes(self, batch: Batch, now: float) -> None:
        """Take in that a worker has its turns at the rates."""
        self._stop_waiting(batch)
        batch.heard_at = now

    def stops(self, *jobs: Job) -> None:
        """Take in that a worker is done with jobs."""
        for job in jobs:
            job.stop()
            left = self._working[job.owner] - 1
            if left:
                self._working[job.owner] = left
            else:
                del self._working[job.owner]

    def end(self, batch: Batch) -> list[Job]:
        """Take back a worker's slot; returns the jobs that it did not begin."""
        left = self._undo(batch)
        self._stop_waiting(batch)
        self.batches.discard(batch)
        self._leave_slot(batch.owner)
        return left

    @property
    def may_be_blocked(self) -> bool:
        """Whether jobs wait for workers that are thought to be fast."""
        if any(map(len, self.batches)):
            return True
        return self.delete_seconds < _FAST_SECONDS and bool(self.batches and self.backlog)

    def unblock(self, now: float) -> None:
        """Let other workers do what waits behind deletes that take long.

        A slot is charged to the owner of the image that is being deleted.
        """
        if not self.may_be_blocked:
            return
        for batch in self.batches:
            job = batch.current
            if job is not None and now - batch.heard_at >= STALL_SECONDS:
                if batch.stalled is not job:
                    batch.stalled = job
                    self.took(now - batch.heard_at)
                self._leave_slot(batch.owner)
                batch.owner = job.owner
                self._take_slot(batch.owner)
                for waiting in self._undo(batch):
                    self.push(waiting)

    def slow_down(self) -> None:
        """Take back what workers have not begun, after the pace was cut."""
        for batch in self.batches:
            for job in self._undo(batch):
                self.push(job)

    def _undo(self, batch: Batch) -> list[Job]:
        jobs = batch.take_back()
        if batch.waits:
            self.waiting -= len(jobs)
        self.stops(*jobs)
        return jobs

    def _stop_waiting(self, batch: Batch) -> None:
        if batch.waits:
            batch.waits = False
            self.waiting -= len(batch)
            self._waiting_workers -= 1

    def _take_slot(self, owner: Owner) -> None:
        self._slots.take(owner)
        self._all_slots.take(owner)

    def _leave_slot(self, owner: Owner) -> None:
        self._slots.leave(owner)
        self._all_slots.leave(owner)

    def _has_room(self, owner: Owner) -> bool:
        """Whether an owner may have one more slot."""
        slots, all_slots = self._slots, self._all_slots
        slots.total = self.pace.concurrent
        if owner not in all_slots.by_owner:  # as of most, where each delete is fast
            return slots.taken < slots.total and all_slots.taken < all_slots.total
        alone = self._is_alone(owner)
        return slots.has_room(owner, alone=alone) and all_slots.has_room(
            owner, alone=alone and len(all_slots.by_owner) == 1
        )

    def _is_alone(self, owner: Owner) -> bool:
        """Whether no other owner's image waits or is in work here."""
        working = self._working
        return self.backlog.owners - bool(self.backlog.count(owner)) + len(working) == (
            owner in working
        )

    def _held_up(self) -> list[Owner]:
        """Owners who may not begin another image although there are slots."""
        if self._slots.taken >= self.pace.concurrent:
            return []
        return [owner for owner in self._slots.by_owner if not self._has_room(owner)]

    def _in_flight(self, owner: Owner) -> int:
        """How many images of an owner are being claimed, wait or are in work."""
        claiming = self.claiming[owner_key(owner)]
        return claiming + self.backlog.count(owner) + self._working.get(owner, 0)

    def _needs_worker(self) -> bool:
        """Whether another worker does more than those there are."""
        busy = self.running - self._waiting_workers
        return (
            not busy
            or self.delete_seconds >= _FAST_SECONDS
            or len(self.backlog) * self.delete_seconds > busy * BATCH_SECONDS
        )

    def _worth_taking(self) -> int:
        """How many jobs a worker takes: more than one where deletes are known to be fast."""
        if not 0 < self.delete_seconds < _FAST_SECONDS or self.breaker.state is not State.CLOSED:
            return 1
        return int(BATCH_SECONDS / self.delete_seconds)

    # -- answers

    def took(self, seconds: float) -> None:
        """Take in how long a delete took.

        The fastest count most: those that are slow now and then are so because of other threads, or
        because of their images.
        """
        seconds = max(seconds, 1e-6)
        if seconds > self.delete_seconds > 0:
            seconds = self.delete_seconds + (seconds - self.delete_seconds) * _WEIGHT
        self.delete_seconds = seconds

    def answered(self, verdict: Verdict, origin: Origin, now: float) -> Change | None:
        """Take in what the store answered to a delete; returns what that changes."""
        # Of data that is gone it does not matter, and that is nearly all.
        alone = verdict is not GONE and self._is_alone(origin.owner)
        return self.health.answered(verdict, origin, now, alone=alone)

    def is_shut(self, now: float) -> bool:
        """Return whether nothing may begin here, so that there is no use in holding claims."""
        return self.breaker.lets_through(now, 0) == 0

    def is_shut_for(self, owner: Owner, now: float) -> bool:
        """Return whether an owner's image that is in work here may not go on; a probe may."""
        if self.breaker.lets_through(now, self.running - 1) == 0:
            return True
        breaker = self.health.shut.get(owner)
        return breaker is not None and breaker.lets_through(now, self._in_flight(owner) - 1) == 0

    def is_outdated(self, began: float, verdict: Verdict) -> bool:
        """Return whether data was not there before an operator last saw to the store.

        :param began: when it was asked for, seconds since boot.
        """
        return began < self.reset_at and (verdict in NOT_MOUNTED or verdict.is_missing)

    def believed(self, verdict: Verdict) -> Verdict:
        """What an answer means where an operator may have said that the data is really gone."""
        if not self.missing.limit and verdict in {*NOT_MOUNTED, MISSING_BELOW}:
            return NOT_FOUND
        return verdict
