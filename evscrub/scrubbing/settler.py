# SPDX-License-Identifier: Apache-2.0
"""Writes the end of works into the registry, as many as have come together at a time."""

import math
import random
from collections.abc import Callable, Sequence
from datetime import timedelta

import anyio
from oslo_log import log as logging

from evscrub.domain.clock import DatabaseClock, epoch
from evscrub.domain.decisions import Kind
from evscrub.domain.hold_rules import was_released
from evscrub.domain.retry_policy import Delays, delay, is_parked
from evscrub.domain.verdict import GONE, IMAGES_OWN, Outcome, Verdict, bad_row
from evscrub.domain.words import count, in_words
from evscrub.queueing.delay_queue import DelayQueue, Source
from evscrub.registry.calls import RegistryAwayError, RegistryCalls
from evscrub.registry.claims import Claims
from evscrub.scrubbing.isolation import apart
from evscrub.scrubbing.job import Work
from evscrub.scrubbing.lane import Again
from evscrub.scrubbing.lease_keeper import Leases
from evscrub.telemetry.group_log import GroupLog
from evscrub.telemetry.statistics import Record, Scrubbed, Trouble

LOG = logging.getLogger(__name__)

#: What has ended is settled after so long, or when it is so many: a transaction for each image
#: would cost the agent and the database more than all else that is done for it.
_GATHER_SECONDS = 0.1
_GATHER_IMAGES = 100
#: What was scrubbed is logged so often, or when it is so many.
_TRACE_SECONDS = 5.0
_TRACE_IMAGES = 100


class Settler:
    """Settles works and tells what becomes of their images.

    :param on_settled: called after each batch.
    :param on_scrubbed: told of each image that nothing is left to do about.
    :param on_parked: told of each image, by id, that only an operator can help.
    """

    def __init__(
        self,
        queue: DelayQueue,
        claims: Claims,
        calls: RegistryCalls,
        leases: Leases,
        database_clock: DatabaseClock,
        record: Record,
        delays: Delays,
        on_settled: Callable[[], None],
        on_scrubbed: Callable[[Scrubbed], None],
        on_parked: Callable[[str, Trouble], None],
    ) -> None:
        self.delays = delays
        #: Images deleted since this time should have come by the bus; None while it is away.
        self.bus_since: float | None = None
        self._queue = queue
        self._claims = claims
        self._calls = calls
        self._leases = leases
        self._database_clock = database_clock
        self._made_at = database_clock.now()
        self._record = record
        self._on_settled = on_settled
        self._on_scrubbed = on_scrubbed
        self._on_parked = on_parked
        self._ended: list[Work] = []
        #: Images to log, by why no data was deleted; empty for those whose data is gone.
        self._untold: dict[str, list[str]] = {}
        #: Images whose data was not there, by store.
        self._absent: dict[str, list[str]] = {}
        self._groups = GroupLog()
        self._told_at = 0.0
        self._dropped = 0  #: by the queue, when the last batch was settled
        self._some = anyio.Event()
        self._many = anyio.Event()

    def __len__(self) -> int:
        """How many works wait to be settled."""
        return len(self._ended)

    def end(self, work: Work) -> None:
        """Take over work that goes no further."""
        self._ended.append(work)
        self._some.set()
        if len(self._ended) >= _GATHER_IMAGES:
            self._many.set()

    async def run(self) -> None:
        """Settle for ever."""
        try:
            while True:
                pause = _TRACE_SECONDS if self._untold else math.inf
                with anyio.move_on_after(min(pause, self._groups.next_due - anyio.current_time())):
                    await self._some.wait()
                if self._ended:
                    with anyio.move_on_after(_GATHER_SECONDS):
                        await self._many.wait()
                    self._some, self._many = anyio.Event(), anyio.Event()
                    await self._settle()
                elif self._some.is_set():
                    self._some = anyio.Event()
                if anyio.current_time() - self._told_at >= _TRACE_SECONDS:
                    self._tell()
                self._tell_groups(anyio.current_time())
        finally:
            self._tell()
            self._tell_groups(math.inf)

    async def _settle(self) -> None:
        works, self._ended = self._ended, []
        bad: dict[str, Exception] = {}

        def refused(work: Work, error: Exception) -> None:
            bad[work.image_id] = error

        try:
            async with self._leases.compared:
                await apart(works, self._write, refused)
        except RegistryAwayError:
            # What is deleted must be written down, however long that takes.
            self._ended = works + self._ended
            self._some.set()
            await anyio.sleep(self._calls.away_seconds)
            return
        self._excuse_dropped()
        for work in works:
            self._leases.works.pop(work.image_id, None)
            if work.image_id in bad:
                # Its claim runs out, and the next to claim it finds what was deleted missing.
                owner = work.claim.image.owner
                self.park(work.image_id, work.source, bad[work.image_id], owner)
                continue
            if not work.is_complete:
                self._queue.cancel(work.image_id)  # what came meanwhile: it has its own time now
            self._queue.done(work.image_id)
            self._count(work)
            if work.begun_at is not None:
                # What fell due before this agent was there waited for others.
                self._record.queued.add(work.begun_at - max(work.ready_at, self._made_at))
                self._record.worked.add(self._database_clock.now() - work.begun_at)
            if work.is_complete:
                self._scrubbed(work)
            else:
                self._try_again(work)
        self._on_settled()

    async def _write(self, works: Sequence[Work]) -> None:
        ends = [work.settlement() for work in works]
        timeout = timedelta(seconds=self._leases.timeout)
        await self._calls.call(
            self._claims.settle, ends, timeout, patience_seconds=self._calls.silent_seconds
        )

    def park(
        self, image_id: str, source: Source, error: Exception, owner: str | None = None
    ) -> None:
        """Park an image whose rows cannot be read, or take no change."""
        verdict = bad_row(error)
        known = self._record.troubles.get(image_id)
        pause = delay(verdict.outcome, 1, self.delays, random.uniform)
        trouble = Trouble(verdict, 1 if known is None else known.tries + 1, True, "", owner)
        self._record.troubles[image_id] = trouble
        self._queue.cancel(image_id)  # what came meanwhile: it has its own time now
        self._queue.done(image_id)
        self._queue.add(image_id, self._database_clock.now() + pause, owner=owner, source=source)
        if known is None or not known.parked:
            self._on_parked(image_id, trouble)
            self._groups.add(
                (verdict.reason, verdict.detail),
                logging.WARNING,
                image_id,
                "left alone, since rows in images or image_locations cannot be read or changed",
                f"mend them ({verdict.detail}); next try in {in_words(pause)}",
                anyio.current_time(),
            )
            self._some.set()  # so that it is told when that is due

    def _count(self, work: Work) -> None:
        """Count what the registry holds of a work: what is judged may yet be taken back."""
        for store, verdict in work.outcomes.values():
            self._record.outcomes[store, verdict.outcome.value, verdict.reason] += 1
            if verdict == GONE:
                self._record.bytes_reclaimed[store] += max(0, work.claim.image.size or 0)

    def _tell(self) -> None:
        """Leave a trace of what cannot be undone: one line for many."""
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
                "Store %s had no data of %s: somebody else removed it, or it was lost: %s",
                store,
                count(len(told), "scrubbed image"),
                ", ".join(told),
            )
        self._untold.clear()
        self._absent.clear()
        self._told_at = anyio.current_time()

    def _tell_groups(self, now: float) -> None:
        for line in self._groups.due(now):
            LOG.log(line.level, "%s", line.text)

    def _scrubbed(self, work: Work) -> None:
        image = work.claim.image
        self._record.forget(image.id)
        late = max(0.0, work.ended_at - work.due) if work.ended_at else 0.0
        if work.data_went:
            self._record.scrubbed += 1
            self._record.late_seconds.append(late)
            self._record.lateness.add(late)
            self._trace("", image.id)
        else:
            self._record.finished[work.why_nothing_went] += 1
            self._trace(work.why_nothing_went, image.id)
        if work.not_found and work.claim.kind is not Kind.STALE:  # its first owner may have been it
            self._report_absent(work)
        if work.source is Source.SWEEP and self._bus_should_have_told(work):
            self._record.missed_by_bus += 1
        self._on_scrubbed(
            Scrubbed(image.id, image.owner, max(0, image.size or 0), late, work.data_went)
        )

    def _report_absent(self, work: Work) -> None:
        """Have it logged that a store did not have an image's data."""
        deleted_at = work.claim.image.deleted_at
        since = f" (deleted {deleted_at:%Y-%m-%dT%H:%M:%SZ})" if deleted_at else ""
        for store in {store for store, verdict in work.outcomes.values() if verdict.is_missing}:
            self._absent.setdefault(store, []).append(f"{work.image_id}{since}")

    def _trace(self, reason: str, image_id: str) -> None:
        ids = self._untold.setdefault(reason, [])
        ids.append(image_id)
        if len(ids) >= _TRACE_IMAGES:
            self._tell()

    def _excuse_dropped(self) -> None:
        """Start over with the bus when a full queue dropped images that it had announced."""
        dropped = self._queue.statistics().dropped
        if self.bus_since is not None and dropped != self._dropped:
            self.bus_since = self._database_clock.now()
        self._dropped = dropped

    def _bus_should_have_told(self, work: Work) -> bool:
        image = work.claim.image
        return (
            work.claim.kind is Kind.PENDING
            and self.bus_since is not None
            and image.deleted_at is not None
            and epoch(image.deleted_at) > self.bus_since
            and not was_released(image, work.claim.locations)
        )

    def _try_again(self, work: Work) -> None:
        """Let an image wait that was not, or not wholly, scrubbed."""
        pause = 0.0 if work.trouble is None else self._note_trouble(work, *work.trouble)
        store = work.trouble[0] if work.trouble else work.next_store
        self._queue.add(
            work.image_id,
            self._database_clock.now() + pause,
            owner=work.claim.image.owner,
            lane=store if work.first or store is None else Again(store),
            source=work.source,
        )

    def _note_trouble(self, work: Work, store: str, verdict: Verdict) -> float:
        """Remember why an image failed; returns the seconds to wait before the next try."""
        self._record.retries += 1
        known = self._record.troubles.get(work.image_id)
        tries = 1 if known is None else known.tries + 1
        pause = delay(verdict.outcome, tries, self.delays, random.uniform)
        parked = is_parked(verdict.outcome, tries)
        trouble = Trouble(verdict, tries, parked, store, work.claim.image.owner)
        self._record.troubles[work.image_id] = trouble
        if parked and (known is None or not known.parked):
            self._on_parked(work.image_id, trouble)
        # What a store as a whole suffers from is told by its lane.
        own_trouble = parked or verdict.outcome in IMAGES_OWN or bool(verdict.hint)
        if own_trouble and (known is None or (known.verdict, known.parked) != (verdict, parked)):
            where = f" from store {store}" if store else ""
            why = verdict.hint or verdict.detail
            self._groups.add(
                (store, verdict.reason, parked),
                logging.INFO if verdict.outcome is Outcome.IN_USE else logging.WARNING,
                work.image_id,
                f"not scrubbed{where} ({verdict.reason.replace('_', ' ')})",
                "; ".join(filter(None, (why, f"next try in {in_words(pause)}"))),
                anyio.current_time(),
            )
        return pause
