# SPDX-License-Identifier: Apache-2.0
"""One image's way from the delay queue to its settlement, from top to bottom.

::

    ready ─> look ─> ready in a lane ─> claim ─> delete ─> settle

An image whose store is not known is looked at first. A claimed image is a job, which waits in the
lane of its next location until a worker has deleted that, and ends with the settler. Each step
moves only what the step before found fit, so any of them may fail, or the process die: the image is
found again by the queue or by a sweep. All that blocks runs in threads.
"""

from collections.abc import Collection, Mapping, Sequence

import anyio
from anyio.abc import TaskGroup
from oslo_log import log as logging

from evscrub.config.settings import Settings
from evscrub.domain.words import count
from evscrub.queueing.delay_queue import DelayQueue, Taken
from evscrub.registry.claims import Claims
from evscrub.registry.faults import is_of_rows
from evscrub.scrubbing.batch import Batch
from evscrub.scrubbing.claimer import UNKNOWN_LANE, Claimer
from evscrub.scrubbing.context import NOBODY, Context, Observers
from evscrub.scrubbing.deleter import Deleter
from evscrub.scrubbing.isolation import apart
from evscrub.scrubbing.job import Job
from evscrub.scrubbing.lane import Lane
from evscrub.scrubbing.lanes import Lanes
from evscrub.scrubbing.last_look import LastLook
from evscrub.scrubbing.lease_keeper import LeaseKeeper
from evscrub.scrubbing.scheduler import Scheduler
from evscrub.scrubbing.settler import Settler
from evscrub.scrubbing.witnesses import Witnesses
from evscrub.stores.backends import Stores
from evscrub.stores.faults import Fault

LOG = logging.getLogger(__name__)

#: How long images wait that something unforeseen happened to.
_DEFECT_SECONDS = 60.0


class Scrubber:
    """The consumer of a delay queue.

    :param queue: times in it are the database's, seconds since the epoch.
    """

    def __init__(
        self,
        queue: DelayQueue,
        claims: Claims,
        stores: Stores,
        context: Context,
        observers: Observers = NOBODY,
    ) -> None:
        self.context = context
        self.record = context.record
        self.calls = context.calls
        self.lanes = Lanes(stores.deletable, context)
        self._queue = queue
        self._stores = stores
        self.leases = LeaseKeeper(claims, context)
        self.settler = Settler(queue, claims, self.leases, observers, context)
        self._claimer = Claimer(queue, claims, stores, context)
        self._scheduler = Scheduler(queue, self.lanes, context)
        self.witnesses = Witnesses(self._claimer.witness_finder.find, stores, context)
        last_look = LastLook(self._claimer.look_again, context)
        self._deleter = Deleter(stores, self.leases, last_look, self.witnesses, context)
        self._looking = False
        self._draining = False
        self._tasks: TaskGroup

    @property
    def settings(self) -> Settings:
        return self.context.settings

    @property
    def store_faults(self) -> Mapping[str, Fault]:
        """The enabled stores that cannot be used."""
        return self._stores.faults

    def try_parked(self, stores: Collection[str]) -> int:
        """Try images at once that were parked since these stores could not be used.

        :returns: how many.
        """
        tried = self.settler.try_parked(stores)
        self.wake()
        return tried

    def wake(self) -> None:
        """Look at the queue again: something was put in."""
        self.context.wakeup.set()

    def change(self, settings: Settings) -> None:
        """Apply changed options at once."""
        old, self.context.settings = self.context.settings, settings
        moved = (settings.policy.scrub_time - old.policy.scrub_time).total_seconds()
        if moved < 0:  # what is looked at too early is told how long to wait
            self._queue.shift(moved)
        self._claimer.change(old)
        self.lanes.change(settings)
        self._deleter.change(settings.concurrency)
        self.wake()

    async def run(self, drain_seconds: float, stop: anyio.Event) -> None:
        """Scrub until `stop`, then finish what is under way and release what was not begun.

        :param drain_seconds: how long deletes under way may take after `stop`.
        """
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._pump)
            for part in (self.settler, self.leases, self.context.calls):
                tasks.start_soon(part.run)
            await stop.wait()
            await self._drain(drain_seconds)
            tasks.cancel_scope.cancel()

    # -- one image's way

    async def _look(self, taken: Sequence[Taken]) -> None:
        """Send images to the lanes of their stores, or wherever else they belong."""
        await apart(taken, self._claimer.look, self._refuse)
        self._looking = False
        self.wake()

    async def _claim(self, lane: Lane, taken: Sequence[Taken]) -> None:
        """Claim images, and let the jobs that they make wait for workers."""
        jobs: list[Job] = []

        async def claim(some: Sequence[Taken]) -> None:
            jobs.extend(await self._claimer.claim(lane, some))

        await apart(taken, claim, self._refuse)
        lane.claim_ends(taken, len(jobs))
        for job in jobs:
            self.leases.add(job)
            self._forward(job)
        self.wake()

    async def _delete(self, lane: Lane, batch: Batch) -> None:
        """Delete a location of each job of a batch, and take each to where it goes next."""
        try:
            await self.lanes.turns(lane, batch)
            self.wake()
            ended, elsewhere = await self._deleter.select(lane, batch)
            for job in (*ended, *elsewhere):
                lane.stops(job)
            for job in ended:
                self.settler.add(job)
            for job in elsewhere:
                self._forward(job)
            await self._deleter.delete(batch)
            proofs = await self._deleter.prove(lane, batch.answers)
            for answer in batch.answers:
                for released in self.lanes.take_in(lane, answer, proofs):
                    self.settler.add(released)
                lane.stops(answer.job)
                self._forward(answer.job)
        except Exception:
            LOG.exception("A worker of store %s has ended", lane.name)
        finally:
            for job in lane.end(batch):
                self._forward(job)
            self._start_in_lanes()

    def _forward(self, job: Job) -> None:
        """Send a job to the lane of its next location, or to be settled where there is none."""
        lane = None if self._draining else self._scheduler.lane_for(job)
        if lane is not None:
            lane.push(job)
        else:
            self.settler.add(job)

    def _refuse(self, taken: Taken, error: Exception) -> None:
        """Park an image whose rows cannot be read; others that raise wait for a while."""
        if not self._queue.is_taken(taken.image_id):
            return  # it was dealt with before its batch raised
        if is_of_rows(error):
            self.settler.park(taken.image_id, taken.source, error)
        else:
            LOG.error("Image %s cannot be worked on", taken.image_id, exc_info=error)
            self._claimer.put_back([taken], UNKNOWN_LANE, after_seconds=_DEFECT_SECONDS)

    # -- what is started when

    async def _pump(self) -> None:
        while not self._draining:
            self.context.wakeup.clear()
            self._start()
            await self.context.wakeup.wait(self._pause_seconds or self._scheduler.pause_seconds())

    def _start(self) -> None:
        """Start whatever can be started now."""
        self._queue.advance(self.context.database_clock.now())
        self.lanes.unblock(self.context.clock.boot())
        may_look = not self._looking and self._may_ask_registry()
        if may_look and (taken := self._scheduler.images_to_look_at()):
            self._looking = True
            self._tasks.start_soon(self._look, taken)
        self._start_in_lanes()

    def _start_in_lanes(self) -> None:
        """Begin jobs, and claim more images where jobs run short."""
        while (begun := self.lanes.next_batch(self.context.clock.boot())) is not None:
            self._tasks.start_soon(self._delete, *begun)
        # A registry that takes no settlements gets no more claims either.
        batch_size = self.context.settings.batch_size
        if self._may_ask_registry() and len(self.settler) <= 2 * batch_size:
            for lane, taken in self._scheduler.claims():
                self._tasks.start_soon(self._claim, lane, taken)

    def _may_ask_registry(self) -> bool:
        return not self._draining and not self._pause_seconds

    @property
    def _pause_seconds(self) -> float:
        """How long to ask the registry for nothing."""
        return max(self.context.calls.away_seconds, self._claimer.refused_seconds)

    async def _drain(self, seconds: float) -> None:
        """Release what was not begun and wait for what was."""
        self._draining = True
        self.wake()  # the pump, for the last time: from here the wake-up is waited for below
        with anyio.move_on_after(seconds):
            while True:
                for job in self.lanes.release():
                    self.settler.add(job)
                if not self.leases.jobs and not any(lane.claims for lane in self.lanes):
                    break
                self.context.wakeup.clear()
                await self.context.wakeup.wait(seconds)
        if self.leases.jobs:
            LOG.warning(
                "%s not settled within drain_timeout: another agent takes over when the claims run"
                " out",
                count(len(self.leases.jobs), "image was", "images were"),
            )
