# SPDX-License-Identifier: Apache-2.0
"""Deletes data: a last look for shared data, the delete in a thread, proofs for missing data.

The thread changes nothing but its batch, and when the first delete of a job began.
"""

from collections.abc import Sequence

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
    """Deletes the jobs of a batch, and checks them before and after that."""

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

    def needs_look(self, batch: Batch) -> bool:
        """Return whether :meth:`look` has to be called before :meth:`select`."""
        return self._last_look.is_due(batch.jobs)

    async def look(self, batch: Batch) -> None:
        """Ask the registry once more whether the data of a batch is shared, where that is due."""
        await self._last_look.renew(batch.jobs)

    def select(self, lane: Lane, batch: Batch) -> tuple[list[Job], list[Job]]:
        """Check a batch right before its deletes, and remove the jobs that must not be deleted now.

        :returns: jobs to end, because their lease expired or the registry could not say whether
            their data is shared; and jobs to forward, because nothing of them is left in this lane
            or the lane is shut for them.
        """
        now = self._context.clock.boot()
        may: list[Job] = []
        end: list[Job] = []
        elsewhere: list[Job] = []
        for job in batch.jobs:
            is_fresh = self._last_look.is_fresh(job)
            if is_fresh and job.needed_elsewhere:
                job.keep(job.needed_elsewhere, self._context.database_clock.now())
            if not is_fresh:
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

    def needs_proof(self, lane: Lane, answers: Sequence[Answer]) -> bool:
        """Return whether :meth:`prove` has anything to prove."""
        return bool(lane.missing.limit) and any(
            answer.verdict is not None and answer.verdict.is_missing for answer in answers
        )

    async def prove(self, lane: Lane, answers: Sequence[Answer]) -> dict[str, Proof]:
        """Return a proof for each part of a store that reported data missing.

        :returns: proofs by endpoint; empty if "not found" is trusted without proof.
        """
        if not self.needs_proof(lane, answers):
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

    def delete(self, batch: Batch) -> None:
        """Delete the next location of each job of a batch; runs in a worker thread.

        Answers are added to the batch; nothing is raised.
        """
        try:
            self._delete_all(batch)
        except BaseException as error:  # noqa: BLE001 - it concerns the current job only
            self.fail(batch, error)

    def fail(self, batch: Batch, error: BaseException) -> None:
        """Answer the current job of a batch, or its first, with an unexpected error."""
        job = batch.current or batch.take()
        if job is not None:
            location, _ = next(job.pending)
            now = self._context.clock.boot()
            batch.answer(self._answer(job, location, None, now, error))
            batch.current = None

    def _delete_all(self, batch: Batch) -> None:
        """Delete the jobs of a batch.

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
        # First, for a log may block: what is checked below must hold when the store is called.
        LOG.debug("About to delete image %s from store %s", job.claim.image.id, target.store)
        # Either may have expired since the event loop checked.
        if not self._leases.has_time(job) or not self._last_look.is_fresh(job):
            return self._answer(job, location, None, began)
        # The answer to the last look of another batch that had the job may have come meanwhile.
        if location.row.id in job.needed_elsewhere:
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
        defect: BaseException | None = None,
    ) -> Answer:
        now, ended_at = self._context.clock.boot(), self._context.database_clock.now()
        return Answer(job, location, verdict, began, now, ended_at, defect)
