# SPDX-License-Identifier: Apache-2.0
"""A lane: schedules the work of one store within its limits.

It only counts and decides, and never waits. Not thread-safe: only the event loop uses it.
"""

from dataclasses import dataclass
from itertools import chain

from evscrub.domain.evidence import Origin, Owner
from evscrub.domain.proof import Missing
from evscrub.domain.verdict import GONE, MISSING_BELOW, NOT_FOUND, Verdict
from evscrub.flow_control.adaptive_limit import Pace
from evscrub.flow_control.circuit_breaker import Breaker, State
from evscrub.flow_control.health import NOT_MOUNTED, Change, Health, HealthStatistics
from evscrub.scrubbing.batch import Batch
from evscrub.scrubbing.claiming import Claiming
from evscrub.scrubbing.job import Job
from evscrub.scrubbing.slots import Backlog, Slots

#: Shorter deletes are fast: a thread hop for each would cost more than the delete itself, and
#: several threads would contend for the GIL.
_FAST_SECONDS = 0.005
#: Work in a batch of fast deletes, in seconds.
BATCH_SECONDS = 0.05
#: Jobs queued behind a longer delete are given to other workers.
STALL_SECONDS = 0.1
#: Time between two looks for batches that are overdue.
_LOOK_SECONDS = 1.0
#: EWMA weight of a delete that is slower than the estimate.
_WEIGHT = 0.05


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """The lane of a store at one moment.

    :param store: its name; empty for images without a location in a usable store.
    :param ready: due images that are not claimed, including those that failed before.
    :param claimed: jobs in the backlog.
    :param running: workers.
    :param is_provable: False if the last proof found no live image to ask the store for; None
        before the first proof.
    """

    store: str
    ready: int
    claimed: int
    running: int
    is_provable: bool | None
    health: HealthStatistics


class Lane:
    """Backlog, slots and health of one store.

    :param name: the store; empty for images without a location in a usable store.
    :param all_slots: slots shared by all stores; None for slots of this lane alone.
    :param not_found_limit: see :class:`evscrub.domain.proof.Missing`, for the next one too.
    """

    def __init__(
        self,
        name: str,
        health: Health,
        all_slots: Slots | None = None,
        *,
        not_found_limit: int,
        trusts_few_missing: bool = True,
    ) -> None:
        self.name = name
        self.health = health
        self.delete_seconds = 0.0  #: estimated duration of a delete; 0 until known
        self.reset_at = float("-inf")  #: last reload by an operator, seconds since boot
        self.batches: set[Batch] = set()  #: one per worker
        self.waiting = 0  #: jobs of workers that wait for the rate limits
        self.claiming = Claiming(name)
        self.backlog = Backlog()
        self.missing = Missing(not_found_limit, trusts_few=trusts_few_missing)
        self._slots = Slots(health.pace.concurrent)
        self._all_slots = all_slots or Slots(health.pace.concurrent)
        self._waiting_workers = 0
        self._overdue: set[Batch] = set()
        self._looked_at = float("-inf")  # for overdue batches, seconds since boot
        self._working: dict[Owner, int] = {}  # jobs of workers

    @property
    def pace(self) -> Pace:
        return self.health.pace

    @property
    def breaker(self) -> Breaker:
        return self.health.breaker

    @property
    def running(self) -> int:
        """Number of workers; each has one job, or a batch of jobs if deletes are fast."""
        return self._slots.taken

    @property
    def unjudged(self) -> int:
        """Number of claimed images without a first judged answer of the store."""
        with_workers = (job for batch in self.batches for job in batch.unjudged)
        return sum(job.first for job in chain(self.backlog, with_workers))

    def statistics(self, ready: int, now: float) -> LaneStatistics:
        """Return the current statistics.

        :param ready: due images of this lane in the queue.
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

    # -- starting workers

    def takes(self, owner: Owner, now: float) -> bool:
        """Return whether the lane accepts a job of an owner: neither's breaker forbids it."""
        if self.is_shut(now):
            return False
        breaker = self.health.shut.get(owner)
        return breaker is None or breaker.lets_through(now, self.probing_of(owner)) != 0

    def push(self, job: Job) -> None:
        """Add a job to the backlog."""
        self.backlog.push(job)

    def drain(self) -> list[Job]:
        """Remove and return all jobs that no worker has started."""
        return self.backlog.drain() + [job for each in self.batches for job in self._undo(each)]

    def drain_owner(self, owner: Owner) -> list[Job]:
        """Remove and return an owner's jobs in the backlog."""
        return self.backlog.drain_owner(owner)

    def may_begin(self, now: float) -> bool:
        """Return whether another worker may start, and has a job to start."""
        return (
            bool(self.backlog)
            and self.free_slots > 0
            and self.breaker.lets_through(now, self.probing) != 0
            and self._needs_worker()
            and self.backlog.turn_to(self._has_room)
        )

    def begin(self, now: float, most: float) -> Batch | None:
        """Start the next jobs on another worker, whose slot :meth:`end` frees.

        :param now: seconds since boot.
        :param most: maximum number of jobs, at least 1.
        :returns: None if no owner in the backlog has a free slot.
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
        """Count a worker that waits for the rate limits."""
        batch.waits = True
        self.waiting += len(batch)
        self._waiting_workers += 1

    def goes(self, batch: Batch, now: float) -> None:
        """Count a worker that the rate limits let go on, at `now` seconds since boot."""
        self._stop_waiting(batch)
        batch.heard_at = now

    def stops(self, *jobs: Job) -> None:
        """Take jobs from their worker."""
        for job in jobs:
            job.stop()
            left = self._working[job.owner] - 1
            if left:
                self._working[job.owner] = left
            else:
                del self._working[job.owner]

    def end(self, batch: Batch) -> list[Job]:
        """Free a worker's slot and return the jobs that it did not start."""
        left = self._undo(batch)
        self._stop_waiting(batch)
        self.batches.discard(batch)
        self._overdue.discard(batch)
        self._leave_slot(batch.owner)
        return left

    @property
    def may_be_blocked(self) -> bool:
        """Whether jobs wait behind deletes, or for workers that are expected to be fast."""
        if any(map(len, self.batches)):
            return True
        return self.delete_seconds < _FAST_SECONDS and bool(self.batches and self.backlog)

    def unblock(self, now: float) -> None:
        """Return the jobs behind a stalled delete to the backlog.

        The worker's slot is charged to the owner of the image that is being deleted. Also look,
        once a second, which deletes are overdue.

        :param now: seconds since boot.
        """
        if now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            self._overdue = {batch for batch in self.batches if batch.is_overdue(now)}
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
        """Return jobs that no worker has started to the backlog; called after the pace was cut."""
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
        """Return whether an owner may have one more slot."""
        slots, all_slots = self._slots, self._all_slots
        slots.total = self.running + self.free_slots
        if owner not in all_slots.by_owner:  # the common case when deletes are fast
            return slots.taken < slots.total and all_slots.taken < all_slots.total
        alone = self._is_alone(owner)
        return slots.has_room(owner, alone=alone) and all_slots.has_room(
            owner, alone=alone and len(all_slots.by_owner) == 1
        )

    def _is_alone(self, owner: Owner) -> bool:
        """Return whether all jobs of this lane belong to the owner."""
        working = self._working
        return self.backlog.owners - bool(self.backlog.count(owner)) + len(working) == (
            owner in working
        )

    def held_up(self) -> list[Owner]:
        """Return the owners who may not start another image although slots are free."""
        if not self.free_slots:
            return []
        return [owner for owner in self._slots.by_owner if not self._has_room(owner)]

    @property
    def probing(self) -> int:
        """Number of workers that may soon tell whether the store works.

        A delete that hangs tells nothing, and would keep the breaker from being probed.
        """
        return self.running - len(self._overdue)

    def probing_of(self, owner: Owner) -> int:
        """Return how many images may soon tell whether an owner's can be deleted.

        Those are being claimed, in the backlog, or with a worker of :attr:`probing`.
        """
        overdue = (job for batch in self._overdue for job in batch.unjudged)
        working = self._working.get(owner, 0) - sum(job.owner == owner for job in overdue)
        return self.claiming.images_of(owner) + self.backlog.count(owner) + working

    @property
    def is_fast(self) -> bool:
        """Whether deletes are known to be fast, and the store works."""
        return 0 < self.delete_seconds < _FAST_SECONDS and self.breaker.state is State.CLOSED

    @property
    def free_slots(self) -> int:
        """How many more workers may run.

        If all that run hang, one more may, within the operator's limit: the store's own limit would
        never recover without an answer.
        """
        running = self.running
        free = self.pace.concurrent - running
        if free <= 0 and running == len(self._overdue) < self.pace.most_concurrent:
            return 1
        return max(0, free)

    def _needs_worker(self) -> bool:
        """Return whether another worker would increase throughput."""
        busy = self.running - self._waiting_workers
        return (
            not busy
            or self.delete_seconds >= _FAST_SECONDS
            or len(self.backlog) * self.delete_seconds > busy * BATCH_SECONDS
        )

    def _worth_taking(self) -> int:
        """Return the batch size for a worker: more than 1 only if deletes are known to be fast."""
        return int(BATCH_SECONDS / self.delete_seconds) if self.is_fast else 1

    # -- answers

    def took(self, seconds: float) -> None:
        """Update the estimate with the duration of a delete.

        A faster delete replaces the estimate, a slower one only moves it a little: occasional slow
        deletes are due to other threads, or to their images.
        """
        seconds = max(seconds, 1e-6)
        if seconds > self.delete_seconds > 0:
            seconds = self.delete_seconds + (seconds - self.delete_seconds) * _WEIGHT
        self.delete_seconds = seconds

    def answered(self, verdict: Verdict, origin: Origin, now: float) -> Change | None:
        """Update the store's health with the answer to a delete.

        :param now: seconds since boot.
        :returns: the change of state that the answer caused; None without one.
        """
        # Irrelevant, and therefore not computed, for successful deletes: nearly all answers.
        alone = verdict is not GONE and self._is_alone(origin.owner)
        return self.health.answered(verdict, origin, now, alone=alone)

    def is_shut(self, now: float) -> bool:
        """Return whether no delete may start, so that the lane's claims should be released."""
        return self.breaker.lets_through(now, 0) == 0

    def is_shut_for(self, owner: Owner, now: float) -> bool:
        """Return whether a started job must not go on; a probe, alone in flight, may."""
        if self.breaker.lets_through(now, self.probing - 1) == 0:
            return True
        breaker = self.health.shut.get(owner)
        return breaker is not None and breaker.lets_through(now, self.probing_of(owner) - 1) == 0

    def may_mislead(self, began: float, verdict: Verdict) -> bool:
        """Return whether a verdict of missing data predates the operator's last reload or a repair.

        A paused store may be under repair, and have some images' data again and not yet others'.

        :param began: start of the delete, seconds since boot.
        """
        is_paused = self.breaker.state is State.FORCED_OPEN
        is_old = is_paused or began < self.reset_at
        return is_old and (verdict in NOT_MOUNTED or verdict.is_missing)

    def effective_verdict(self, verdict: Verdict) -> Verdict:
        """Return the verdict to act on.

        A missing or empty directory means :data:`NOT_FOUND` in a store whose missing data the
        operator has acknowledged; every other verdict is returned unchanged.
        """
        if not self.missing.limit and verdict in {*NOT_MOUNTED, MISSING_BELOW}:
            return NOT_FOUND
        return verdict
