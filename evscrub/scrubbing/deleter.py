# SPDX-License-Identifier: Apache-2.0
"""Deletes data: a last look for shared data, the delete in a thread, proofs for missing data.

Store drivers block, so a worker thread calls them. The thread changes nothing but its batch.
"""

from collections.abc import Sequence

import anyio
import anyio.to_thread
from oslo_log import log as logging

from evscrub.domain.proof import Proof
from evscrub.domain.verdict import GONE, Verdict
from evscrub.scrubbing.batch import Answer, Batch
from evscrub.scrubbing.context import Context
from evscrub.scrubbing.job import Job, Location
from evscrub.scrubbing.lane import Lane
from evscrub.scrubbing.last_look import NO_LAST_LOOK, LastLook
from evscrub.scrubbing.lease_keeper import LeaseKeeper
from evscrub.scrubbing.witnesses import Witnesses
from evscrub.stores.backends import Stores, Target

LOG = logging.getLogger(__name__)


class Deleter:
    """Deletes batches of jobs; the lanes bound how many run at a time."""

    def __init__(
        self,
        stores: Stores,
        leases: LeaseKeeper,
        last_look: LastLook,
        witnesses: Witnesses,
        context: Context,
    ) -> None:
        self._stores = stores
        self._leases = leases
        self._last_look = last_look
        self._witnesses = witnesses
        self._context = context
        self._threads = anyio.CapacityLimiter(context.settings.concurrency)

    def change(self, concurrency: int) -> None:
        """Set the number of threads.

        :param concurrency: deletes at a time, at least 1.
        """
        self._threads.total_tokens = concurrency

    async def select(self, lane: Lane, batch: Batch) -> tuple[list[Job], list[Job]]:
        """Check a batch right before its deletes, and remove the jobs that must not be deleted now.

        :returns: jobs to end, because their lease expired or the registry could not say whether
            their data is shared; and jobs to forward, because nothing of them is left in this lane
            or the lane is shut for them.
        """
        shared = await self._last_look.renew(batch.jobs)
        now = self._context.clock.boot()
        may: list[Job] = []
        end: list[Job] = []
        elsewhere: list[Job] = []
        for job in batch.jobs:  # the lane may have taken some back meanwhile
            found = shared.get(job.image_id)
            if found:
                job.keep(found, self._context.database_clock.now())
            if found is None:
                job.trouble = (lane.name, NO_LAST_LOOK)
                end.append(job)
            elif job.next_store != lane.name or lane.is_shut_for(job.owner, now):
                elsewhere.append(job)
            elif not self._leases.is_ours(job):
                end.append(job)
            else:
                may.append(job)
        batch.take_back()
        batch.put(may)
        return end, elsewhere

    async def delete(self, batch: Batch) -> None:
        """Delete the next location of each job of a batch in a thread, and wait for it.

        Answers are added to the batch; nothing is raised for a failed delete.

        :param batch: jobs that :meth:`select` left in it.
        """
        if not batch:
            return
        try:
            await anyio.to_thread.run_sync(
                self._delete_all,
                batch,
                limiter=self._threads,
                # Cancelled only when the process stops; until then the slot is held for as long
                # as the thread runs.
                abandon_on_cancel=True,
            )
        except Exception as error:  # noqa: BLE001 - no thread could start, so the first job failed
            job = batch.current or batch.take()
            if job is not None:
                location, _ = next(job.pending)
                now = self._context.clock.boot()
                batch.answer(self._answer(job, location, None, now, error))

    async def prove(self, lane: Lane, answers: Sequence[Answer]) -> dict[str, Proof]:
        """Return a proof for each part of a store that reported data missing.

        :returns: proofs by endpoint; empty if "not found" is trusted without proof.
        """
        if not lane.missing.limit:
            return {}
        missing = {
            answer.location.target.endpoint: answer.ended
            for answer in answers
            if answer.verdict and answer.verdict.is_missing and answer.location.target
        }
        return {
            part: await self._witnesses.prove(lane.name, part, since)
            for part, since in missing.items()
        }

    def _delete_all(self, batch: Batch) -> None:
        """Delete the jobs of a batch; runs in a worker thread.

        Stops at the first answer that is neither gone nor missing, because the event loop decides
        what it means for the rest. Missing data does not stop it: one proof covers all of it.
        """
        batch.heard_at = began = self._context.clock.boot()
        while (job := batch.take()) is not None:
            location, target = next(job.pending)
            answer = self._delete(job, location, target, began)
            batch.answer(answer)
            began = answer.ended
            verdict = answer.verdict
            if verdict is None and answer.defect is None:
                continue
            if verdict is None or not (verdict == GONE or verdict.is_missing):
                break
        batch.current = None

    def _delete(self, job: Job, location: Location, target: Target, began: float) -> Answer:
        # Either may have expired since the event loop checked.
        if not self._leases.has_time(job) or not self._last_look.is_fresh(job):
            return self._answer(job, location, None, began)
        if job.begun_at is None:
            job.begun_at = self._context.database_clock.now()
        try:
            verdict = self._stores.delete(target)
        except Exception as error:  # noqa: BLE001 - it concerns this image only
            return self._answer(job, location, None, began, error)
        return self._answer(job, location, verdict, began)

    def _answer(
        self,
        job: Job,
        location: Location,
        verdict: Verdict | None,
        began: float,
        defect: Exception | None = None,
    ) -> Answer:
        now, ended_at = self._context.clock.boot(), self._context.database_clock.now()
        return Answer(job, location, verdict, began, now, ended_at, defect)
