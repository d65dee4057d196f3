# SPDX-License-Identifier: Apache-2.0
"""Writes the results of jobs to the registry in batches."""

import math
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta

import anyio
from oslo_log import log as logging

from evscrub.domain.clock import epoch
from evscrub.domain.decisions import Kind
from evscrub.domain.hold_rules import was_released
from evscrub.domain.retry_policy import delay, is_parked
from evscrub.domain.verdict import GONE, IMAGES_OWN, Outcome, Verdict, bad_row
from evscrub.domain.words import count, in_words
from evscrub.queueing.delay_queue import DelayQueue, Source
from evscrub.registry.claims import Claims
from evscrub.registry.gateway import RegistryAwayError
from evscrub.scrubbing.claiming import Again
from evscrub.scrubbing.context import Context, Observers
from evscrub.scrubbing.isolation import apart
from evscrub.scrubbing.job import Job
from evscrub.scrubbing.lease_keeper import LeaseKeeper
from evscrub.scrubbing.put_off import PutOff
from evscrub.telemetry.group_log import GroupLog
from evscrub.telemetry.statistics import Scrubbed, Trouble

LOG = logging.getLogger(__name__)

#: Ended jobs are settled after this time, or as soon as there are this many: a transaction for each
#: image would cost the agent and the database more than everything else done for it.
_GATHER_SECONDS = 0.1
_GATHER_IMAGES = 100
#: Scrubbed images are logged at this interval, or as soon as there are this many.
_TRACE_SECONDS = 5.0
_TRACE_IMAGES = 100


class Settler:
    """Settles jobs, and logs and counts their results."""

    def __init__(
        self,
        queue: DelayQueue,
        claims: Claims,
        leases: LeaseKeeper,
        observers: Observers,
        context: Context,
    ) -> None:
        #: The bus should have announced images deleted since this time; None while it is down.
        self.bus_since: float | None = None
        self._queue = queue
        self._claims = claims
        self._leases = leases
        self._observers = observers
        self._context = context
        self._made_at = context.database_clock.now()
        self._ended: list[Job] = []
        self._put_off = PutOff()
        #: Images to log, by the reason that no data was deleted; empty if data was deleted.
        self._untold: dict[str, list[str]] = {}
        #: Images to log whose data was missing, by store.
        self._absent: dict[str, list[str]] = {}
        self._groups = GroupLog()
        self._told_at = 0.0
        self._dropped = 0  #: images dropped by the queue up to the last settlement
        self._some = anyio.Event()
        self._many = anyio.Event()

    def __len__(self) -> int:
        """Return the number of jobs that wait to be settled, without those that are put off."""
        return len(self._ended)

    @property
    def put_off(self) -> int:
        """Number of ended jobs whose rows another transaction has locked."""
        return len(self._put_off)

    @property
    def stuck(self) -> int:
        """Number of those that are not worth waiting for at a stop."""
        return self._put_off.stuck(self._context.clock.boot())

    def add(self, job: Job) -> None:
        """End a job and queue it for settlement.

        :raises WrongStateError: the job is not WAITING.
        """
        job.end()
        self._ended.append(job)
        self._some.set()
        if len(self._ended) >= _GATHER_IMAGES:
            self._many.set()

    async def run(self) -> None:
        """Settle until cancelled."""
        try:
            while True:
                pause = _TRACE_SECONDS if self._untold else math.inf
                due = min(self._groups.next_due, self._put_off.due_at)
                with anyio.move_on_after(min(pause, due - self._context.clock.boot())):
                    await self._some.wait()
                if self._ended:
                    with anyio.move_on_after(_GATHER_SECONDS):
                        await self._many.wait()
                    self._some, self._many = anyio.Event(), anyio.Event()
                    await self._settle()
                elif self._context.clock.boot() >= self._put_off.due_at:
                    await self._settle()
                elif self._some.is_set():
                    self._some = anyio.Event()
                if self._context.clock.boot() - self._told_at >= _TRACE_SECONDS:
                    self._tell()
                self._tell_groups(self._context.clock.boot())
        finally:
            self._tell()
            self._tell_groups(math.inf)

    async def _settle(self) -> None:
        jobs, self._ended = self._ended, []
        jobs += self._put_off.due(self._context.clock.boot())
        bad: dict[str, Exception] = {}
        locked: set[str] = set()

        async def write(some: Sequence[Job]) -> None:
            locked.update(await self._write(some))

        def refused(job: Job, error: Exception) -> None:
            bad[job.image_id] = error

        try:
            async with self._leases.compared:
                await apart(jobs, write, refused)
        except RegistryAwayError:
            # Deletions must be recorded, so retry until the registry is back.
            self._ended = [job for job in jobs if job not in self._put_off] + self._ended
            self._some.set()
            await anyio.sleep(self._context.calls.away_seconds)
            return
        self._excuse_dropped()
        self._put_off.sort(jobs, locked, self._context.clock.boot())
        if text := self._put_off.warning(self._context.clock.boot()):
            LOG.warning("%s", text)
        for job in jobs:
            if job not in self._put_off:
                self._settled(job, bad.get(job.image_id))
        self._context.wakeup.set()

    def _settled(self, job: Job, error: Exception | None) -> None:
        """Note the result of a job.

        :param error: what its rows raised instead of being updated.
        """
        job.settled()
        self._leases.remove(job)
        if error is not None:
            # Its claim expires, and the next claim finds the deleted data missing.
            self.park(job.image_id, job.source, error, job.claim.image.owner)
            return
        if not job.is_complete:
            self._queue.cancel(job.image_id)  # drop a newer entry: the retry sets the time
        self._queue.done(job.image_id)
        self._count(job)
        if job.begun_at is not None:
            # Time before this agent started is not its queue's.
            self._context.record.queued.add(job.begun_at - max(job.ready_at, self._made_at))
            self._context.record.worked.add(self._context.database_clock.now() - job.begun_at)
        if job.is_complete:
            self._scrubbed(job)
        else:
            self._try_again(job)

    async def _write(self, jobs: Sequence[Job]) -> Collection[str]:
        ends = [job.settlement() for job in jobs]
        timeout = timedelta(seconds=self._leases.timeout)
        return await self._context.calls.call(
            self._claims.settle, ends, timeout, patience_seconds=self._context.calls.silent_seconds
        )

    def park(
        self, image_id: str, source: Source, error: Exception, owner: str | None = None
    ) -> None:
        """Park an image whose rows cannot be read or updated; do nothing if it is not taken.

        :param error: what the rows raised.
        """
        if not self._queue.is_taken(image_id):
            return  # it was handled before its batch raised
        verdict = bad_row(error)
        known = self._context.record.troubles.get(image_id)
        pause = delay(verdict.outcome, 1, self._context.settings.delays, self._context.uniform)
        trouble = Trouble(verdict, 1 if known is None else known.tries + 1, True, "", owner)
        self._context.record.failed(image_id, trouble)
        self._queue.cancel(image_id)  # drop a newer entry: the retry sets the time
        self._queue.done(image_id)
        self._queue.add(
            image_id, self._context.database_clock.now() + pause, owner=owner, source=source
        )
        if known is None or not known.parked:
            self._observers.on_parked(image_id, trouble)
            self._groups.add(
                (verdict.reason, verdict.detail),
                logging.WARNING,
                image_id,
                "left alone, since rows in images or image_locations cannot be read or changed",
                f"repair them ({verdict.detail}); next try in {in_words(pause)}",
                self._context.clock.boot(),
            )
            self._some.set()  # so that run() logs the group when it is due

    def _count(self, job: Job) -> None:
        """Count the verdicts of a settled job; before it is settled they are not final."""
        for store, verdict in _verdicts(job):
            self._context.record.outcomes[store, verdict.outcome.value, verdict.reason] += 1
            if verdict == GONE:
                self._context.record.bytes_reclaimed[store] += max(0, job.claim.image.size or 0)

    def _tell(self) -> None:
        """Log finished images, many to a line: deletions cannot be undone and need a trace."""
        for reason, ids in self._untold.items():
            if reason:
                LOG.info(
                    "Finished %s without a delete (%s): %s",
                    count(len(ids), "image"),
                    reason.replace("_", " "),
                    " ".join(ids),
                )
            else:
                LOG.info("Scrubbed %s: %s", count(len(ids), "image"), " ".join(ids))
        for store, told in self._absent.items():
            LOG.warning(
                "Store %s had no data of %s: something else removed it, or it was lost: %s",
                store,
                count(len(told), "scrubbed image"),
                ", ".join(told),
            )
        self._untold.clear()
        self._absent.clear()
        self._told_at = self._context.clock.boot()

    def _tell_groups(self, now: float) -> None:
        for line in self._groups.due(now):
            LOG.log(line.level, "%s", line.text)

    def _scrubbed(self, job: Job) -> None:
        image = job.claim.image
        self._context.record.forget(image.id)
        late = max(0.0, job.ended_at - job.due) if job.ended_at else 0.0
        if job.data_went:
            self._context.record.scrubbed += 1
            self._context.record.late_seconds.append(late)
            self._context.record.lateness.add(late)
            self._trace("", image.id)
        else:
            self._context.record.finished[job.why_nothing_went] += 1
            self._trace(job.why_nothing_went, image.id)
        # The agent whose claim expired may have deleted it.
        if job.missing_in and job.claim.kind is not Kind.EXPIRED:
            self._report_absent(job)
        if job.source is Source.SWEEP and self._bus_should_have_told(job):
            self._context.record.missed_by_bus += 1
        self._observers.on_scrubbed(
            Scrubbed(image.id, image.owner, max(0, image.size or 0), late, job.data_went)
        )

    def _report_absent(self, job: Job) -> None:
        """Queue a log entry for an image whose data was missing from its store."""
        deleted_at = job.claim.image.deleted_at
        since = f" (deleted {deleted_at:%Y-%m-%dT%H:%M:%SZ})" if deleted_at else ""
        for store in job.missing_in:
            self._absent.setdefault(store, []).append(f"{job.image_id}{since}")

    def _trace(self, reason: str, image_id: str) -> None:
        ids = self._untold.setdefault(reason, [])
        ids.append(image_id)
        if len(ids) >= _TRACE_IMAGES:
            self._tell()

    def _excuse_dropped(self) -> None:
        """Restart the watch on the bus if the queue dropped images that it may have announced."""
        dropped = self._queue.statistics().dropped
        if self.bus_since is not None and dropped != self._dropped:
            self.bus_since = self._context.database_clock.now()
        self._dropped = dropped

    def _bus_should_have_told(self, job: Job) -> bool:
        image = job.claim.image
        return (
            job.claim.kind is Kind.PENDING
            and self.bus_since is not None
            and image.deleted_at is not None
            and epoch(image.deleted_at) > self.bus_since
            and not was_released(image, job.claim.locations)
        )

    def _try_again(self, job: Job) -> None:
        """Requeue an image that was not scrubbed completely."""
        pause = 0.0 if job.trouble is None else self._note_trouble(job, *job.trouble)
        store = job.trouble[0] if job.trouble else job.next_store
        self._queue.add(
            job.image_id,
            self._context.database_clock.now() + pause,
            owner=job.claim.image.owner,
            lane=store if job.first or store is None else Again(store),
            source=job.source,
        )

    def _note_trouble(self, job: Job, store: str, verdict: Verdict) -> float:
        """Record why an image failed, and return the seconds until its retry."""
        self._context.record.retries += 1
        known = self._context.record.troubles.get(job.image_id)
        tries = 1 if known is None else known.tries + 1
        pause = delay(verdict.outcome, tries, self._context.settings.delays, self._context.uniform)
        parked = is_parked(verdict.outcome, tries)
        trouble = Trouble(verdict, tries, parked, store, job.claim.image.owner)
        self._context.record.failed(job.image_id, trouble)
        if parked and (known is None or not known.parked):
            self._observers.on_parked(job.image_id, trouble)
        # The lane logs trouble of the whole store.
        own_trouble = parked or verdict.outcome in IMAGES_OWN or bool(verdict.hint)
        if own_trouble and (known is None or (known.verdict, known.parked) != (verdict, parked)):
            where = f" from store {store}" if store else ""
            why = verdict.hint or verdict.detail
            self._groups.add(
                (store, verdict.reason, parked),
                logging.INFO if verdict.outcome is Outcome.IN_USE else logging.WARNING,
                job.image_id,
                f"not scrubbed{where} ({verdict.reason.replace('_', ' ')})",
                "; ".join(filter(None, (why, f"next try in {in_words(pause)}"))),
                self._context.clock.boot(),
            )
        return pause


def _verdicts(job: Job) -> Iterator[tuple[str, Verdict]]:
    for location in job.locations:
        if location.verdict is not None:
            yield location.store, location.verdict
