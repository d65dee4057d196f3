# SPDX-License-Identifier: Apache-2.0
"""The life of one image from the delay queue to its settlement, from top to bottom.

::

    ready ─> look ─> ready in a lane ─> claim ─> prepare ─> delete ─> prove ─> finish ─> settle

An image whose store is not known is looked up first. A claimed image is a job. It waits in the lane
of its next location until a worker deletes that, and in the end goes to the settler.
:class:`~evscrub.scrubbing.scrubber.Scrubber` starts each step, with what
:class:`~evscrub.scrubbing.scheduler.Scheduler` and :class:`~evscrub.scrubbing.lanes.Lanes` choose.
Steps that wait are tasks; most batches have nothing to wait for in `prepare` and `prove`. Any step
may fail, which leaves the image to a retry by the queue; if the process dies, a later sweep finds
it. Blocking calls run in threads.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from oslo_log import log as logging

from evscrub.domain.proof import Proof
from evscrub.domain.verdict import judge
from evscrub.queueing.delay_queue import Taken
from evscrub.registry.faults import is_of_rows
from evscrub.scrubbing.batch import Batch
from evscrub.scrubbing.claimer import UNKNOWN_LANE, Claimer
from evscrub.scrubbing.deleter import Deleter
from evscrub.scrubbing.isolation import apart
from evscrub.scrubbing.job import Job
from evscrub.scrubbing.lane import Lane
from evscrub.scrubbing.lanes import Lanes
from evscrub.scrubbing.scheduler import Scheduler
from evscrub.scrubbing.settler import Settler
from evscrub.scrubbing.workers import Workers

LOG = logging.getLogger(__name__)

#: Delay of images whose step raised an unexpected exception.
_DEFECT_SECONDS = 60.0


class Pipeline:
    """The steps of an image; the scrubber starts them."""

    def __init__(
        self,
        claimer: Claimer,
        lanes: Lanes,
        deleter: Deleter,
        settler: Settler,
        scheduler: Scheduler,
        workers: Workers,
    ) -> None:
        self._claimer = claimer
        self._lanes = lanes
        self._deleter = deleter
        self._settler = settler
        self._scheduler = scheduler
        self._workers = workers

    async def look(self, taken: Sequence[Taken]) -> None:
        """Queue images in the lanes of their stores, or set them aside."""
        await apart(taken, self._claimer.look, self._refuse)

    async def claim(self, lane: Lane, taken: Sequence[Taken]) -> None:
        """Claim images and forward their jobs to the lanes."""
        jobs: list[Job] = []

        async def claim(some: Sequence[Taken]) -> None:
            jobs.extend(await self._claimer.claim(lane, some))

        await apart(taken, claim, self._refuse)
        lane.claiming.ends(taken, sum(job.next_store == lane.name for job in jobs))
        self._forward(*jobs)

    def may_delete(self, lane: Lane, batch: Batch) -> bool:
        """Return whether :meth:`delete` may be called without waiting in :meth:`prepare`."""
        return not (self._lanes.has_limits(lane) or self._deleter.needs_look(batch))

    async def prepare(self, lane: Lane, batch: Batch) -> None:
        """Wait for the rate limits and a last look for shared data, then delete."""
        with self._giving_up(lane, batch):
            await self._lanes.turns(lane, batch)
            await self._deleter.look(batch)
            self._delete(lane, batch)

    def delete(self, lane: Lane, batch: Batch) -> None:
        """Have a worker delete one location of each job of a batch."""
        with self._giving_up(lane, batch):
            self._delete(lane, batch)

    def _delete(self, lane: Lane, batch: Batch) -> None:
        ended, elsewhere = self._deleter.select(lane, batch)
        lane.stops(*ended, *elsewhere)
        self.settle(*ended)
        self._forward(*elsewhere)
        try:
            if batch:
                self._workers.start(lane, batch)
                return
        except RuntimeError as error:  # no thread could be started
            self._deleter.fail(batch, error)
        self._finish(lane, batch, {})

    async def deleted(self) -> list[tuple[Lane, Batch]]:
        """Wait until workers have ended, and return their batches, each with its lane."""
        return await self._workers.ended()

    def may_finish(self, lane: Lane, batch: Batch) -> bool:
        """Return whether :meth:`finish` may be called without waiting in :meth:`prove`."""
        return not self._deleter.needs_proof(lane, batch.answers)

    async def prove(self, lane: Lane, batch: Batch) -> None:
        """Wait for proofs that a store works that reported data missing, then finish."""
        with self._giving_up(lane, batch):
            self._finish(lane, batch, await self._deleter.prove(lane, batch.answers))

    def finish(self, lane: Lane, batch: Batch) -> None:
        """Judge the answers to a batch's deletes, and forward or settle each job."""
        with self._giving_up(lane, batch):
            self._finish(lane, batch, {})

    def _finish(self, lane: Lane, batch: Batch, proofs: Mapping[str, Proof]) -> None:
        if batch.current is not None:
            raise RuntimeError(f"the thread has no answer for image {batch.current.image_id}")
        for answer in batch.answers:
            released = self._lanes.apply(lane, answer, proofs)  # other jobs, if the lane shuts
            self.settle(*released)
            lane.stops(answer.job)
            self._forward(answer.job)
        self._forward(*lane.end(batch))

    @contextmanager
    def _giving_up(self, lane: Lane, batch: Batch) -> Iterator[None]:
        """If a step fails, give up and settle the jobs that are still in the batch."""
        try:
            yield
        except Exception as error:
            LOG.exception("A worker of store %s failed", lane.name)
            left = batch.started
            lane.stops(*left)
            for job in (*left, *lane.end(batch)):
                job.give_up((lane.name, judge(error, "")))
                self.settle(job)

    def _forward(self, *jobs: Job) -> None:
        """Send jobs to the lane of their next location, or settle them if there is none."""
        for job in jobs:
            lane = self._scheduler.lane_for(job)
            if lane is not None:
                lane.push(job)
            else:
                self.settle(job)

    def settle(self, *jobs: Job) -> None:
        """End jobs and hand them to the settler; a later claim handles what is left of them."""
        for job in jobs:
            self._settler.add(job)

    def _refuse(self, taken: Taken, error: Exception) -> None:
        """Park an image whose rows raise; delay one that fails for any other reason."""
        if is_of_rows(error):
            self._settler.park(taken.image_id, taken.source, error)
        else:
            LOG.error("Cannot process image %s", taken.image_id, exc_info=error)
            self._claimer.put_back([taken], UNKNOWN_LANE, after_seconds=_DEFECT_SECONDS)
