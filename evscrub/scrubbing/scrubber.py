# SPDX-License-Identifier: Apache-2.0
"""The consumer: takes due images from the queue and deletes their data.

One pump decides what to start; everything that blocks runs in worker threads. An image goes

    ready, store unknown -> look -> ready in its lane -> claim -> backlog -> work -> settle

and each arrow moves only what the step before found fit, so that any step may fail, or the process
die, and the image is found again by the queue or by a sweep.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup
from oslo_log import log as logging

from evscrub.config.settings import Settings
from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.domain.proof import ProofResult
from evscrub.domain.verdict import UNUSABLE
from evscrub.domain.words import count
from evscrub.flow_control.circuit_breaker import State
from evscrub.queueing.delay_queue import DelayQueue, Taken
from evscrub.registry.calls import SILENT_SECONDS, CallsStatistics, RegistryCalls
from evscrub.registry.claims import Claims
from evscrub.registry.faults import is_of_rows
from evscrub.scrubbing.claimer import UNKNOWN_LANE, Claimer
from evscrub.scrubbing.isolation import apart
from evscrub.scrubbing.job import Work
from evscrub.scrubbing.lane import Again, Lane, LaneStatistics
from evscrub.scrubbing.lanes import Lanes
from evscrub.scrubbing.last_look import LastLook
from evscrub.scrubbing.lease_keeper import Leases, LeaseStatistics
from evscrub.scrubbing.settler import Settler
from evscrub.scrubbing.slots import Slot
from evscrub.scrubbing.witnesses import Witnesses
from evscrub.scrubbing.workers import Workers
from evscrub.stores.backends import Stores
from evscrub.telemetry.statistics import (
    ImagesInTrouble,
    Record,
    RecordStatistics,
    Scrubbed,
    Trouble,
    TroubleStatistics,
)

LOG = logging.getLogger(__name__)

_LOOK_SIZE = 500
#: How long images wait that something unforeseen happened to.
_DEFECT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ScrubberStatistics:
    """The scrubber's parts at one moment.

    :param lanes: of each store that has one.
    :param running: workers of all stores.
    :param unsettled: ended images whose end is not in the registry yet.
    :param proofs: questions for live images, by store and result.
    """

    settings: Settings
    record: RecordStatistics
    lanes: tuple[LaneStatistics, ...]
    running: int
    leases: LeaseStatistics
    unsettled: int
    registry: CallsStatistics
    proofs: Mapping[tuple[str, ProofResult], int]


class Scrubber:
    """The consumer of a delay queue.

    :param queue: times in it are the database's, seconds since the epoch.
    :param on_scrubbed: told of each image when its data is gone.
    :param on_parked: told of each image, by id, that only an operator can help.
    """

    def __init__(
        self,
        queue: DelayQueue,
        claims: Claims,
        stores: Stores,
        clock: Clock,
        database_clock: DatabaseClock,
        settings: Settings,
        on_scrubbed: Callable[[Scrubbed], None] = lambda _: None,
        on_parked: Callable[[str, Trouble], None] = lambda *_: None,
    ) -> None:
        self.queue = queue
        self.record = Record()
        self._clock = clock
        self._database_clock = database_clock
        self.settings = settings
        lease_seconds = settings.policy.claim_timeout.total_seconds()
        self.calls = RegistryCalls(clock, claims.database, min(SILENT_SECONDS, lease_seconds / 2))
        self.leases = Leases(claims, self.calls, clock, self.record, lease_seconds)
        self.settler = Settler(
            queue,
            claims,
            self.calls,
            self.leases,
            database_clock,
            self.record,
            settings.delays,
            self.wake,
            on_scrubbed,
            on_parked,
        )
        self.lanes = Lanes(
            settings,
            stores.deletable,
            clock,
            self.settler.end,
        )
        self._claimer = Claimer(
            queue, claims, self.calls, stores, clock, database_clock, self.record, settings
        )
        self.witnesses = Witnesses(self._claimer.witness_finder.find, stores, self.calls, clock)
        self.workers = Workers(
            stores,
            self.lanes,
            self.leases,
            LastLook(self._claimer.look_again, self.calls, clock),
            self.witnesses,
            clock,
            database_clock,
            settings.concurrency,
            self.wake,
            self._forward,
        )
        self._looking = False
        self._draining = False
        self._changed = anyio.Event()
        self._tasks: TaskGroup

    def statistics(self) -> ScrubberStatistics:
        """Return what the parts say; costs little, however many images are in trouble."""
        return ScrubberStatistics(
            settings=self.settings,
            record=self.record.statistics(),
            lanes=self.lanes.statistics(self.queue),
            running=self.lanes.running,
            leases=self.leases.statistics(self._database_clock.now()),
            unsettled=len(self.settler),
            registry=self.calls.statistics(),
            proofs=self.witnesses.statistics().proofs,
        )

    def trouble_statistics(self, shown: int) -> TroubleStatistics:
        """Count the images in trouble; see :meth:`Record.trouble_statistics`."""
        return self.record.trouble_statistics(shown)

    def images_in_trouble(self) -> ImagesInTrouble:
        """Return a copy of all that is known of images in trouble."""
        return self.record.images_in_trouble()

    def is_in_trouble(self, image_id: str) -> bool:
        """Return whether an image failed and waits for its next try."""
        return image_id in self.record.troubles

    def sweep_begins(self) -> None:
        """Take in that a full sweep begins, which finds the damaged images again."""
        self.record.sweep_begins()

    def bus_changed(self, *, joined: bool) -> None:
        """Take in whether the bus announces images from this moment on."""
        self.settler.bus_since = self._database_clock.now() if joined else None

    def wake(self) -> None:
        """Look at the queue again: something was put in."""
        self._changed.set()

    def change(self, settings: Settings) -> None:
        """Apply changed options at once."""
        old, self.settings = self.settings, settings
        moved = (settings.policy.scrub_time - old.policy.scrub_time).total_seconds()
        if moved < 0:  # what is looked at too early is told how long to wait
            self.queue.shift(moved)
        self._claimer.change(settings)
        self.settler.delays = settings.delays
        self.lanes.change(settings)
        self.workers.change(settings.concurrency)
        self.wake()

    def try_parked(self, stores: Collection[str]) -> int:
        """Try images at once that were parked since these stores could not be used.

        :returns: how many.
        """
        if not stores:
            return 0
        now = self._database_clock.now()
        parked = [
            (image_id, trouble)
            for image_id, trouble in self.record.troubles.items()
            if trouble.store in stores and trouble.verdict.reason in UNUSABLE
        ]
        for image_id, trouble in parked:
            self.queue.add(image_id, now, owner=trouble.owner, lane=trouble.store)
        self.wake()
        return len(parked)

    async def run(self, drain_seconds: float, stop: anyio.Event) -> None:
        """Scrub until `stop`, then finish what is under way and release what was not begun.

        :param drain_seconds: how long deletes under way may take after `stop`.
        """
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._pump_for_ever)
            tasks.start_soon(self.settler.run)
            tasks.start_soon(self.leases.run)
            tasks.start_soon(self.calls.run)
            await stop.wait()
            await self._drain(drain_seconds)
            tasks.cancel_scope.cancel()

    # -- the pump

    async def _pump_for_ever(self) -> None:
        while not self._draining:
            self._changed = anyio.Event()
            self._pump()
            pause = self.lanes.next_look()
            due = self.queue.next_advance()
            if due is not None:
                pause = min(pause, max(0.0, due - self._database_clock.now()))
            if self._pause_seconds:
                pause = self._pause_seconds
            with anyio.move_on_after(pause):
                await self._changed.wait()

    def _pump(self) -> None:
        """Start whatever can be started now."""
        self.queue.advance(self._database_clock.now())
        if self.queue.has_ready(UNKNOWN_LANE) and not self._looking and self._may_ask_registry():
            self._looking = True
            self._tasks.start_soon(self._look, self.queue.take(UNKNOWN_LANE, _LOOK_SIZE))
        self._pump_lanes()

    def _pump_lanes(self) -> None:
        """Begin claimed images, and claim more where they run short."""
        now = self._clock.boot()
        while (lane := self.lanes.next_to_begin(now)) and (slot := lane.begin(now)):
            self._tasks.start_soon(self._work, lane, slot)
        # A registry that takes no settlements gets no more claims either.
        if self._may_ask_registry() and len(self.settler) <= 2 * self.settings.batch_size:
            for store in {_store_of(name) for name in self.queue.lanes() if name != UNKNOWN_LANE}:
                self._claim_more(self.lanes.of(store), now)

    def _may_ask_registry(self) -> bool:
        return not self._draining and not self._pause_seconds

    @property
    def _pause_seconds(self) -> float:
        """How long to ask the registry for nothing."""
        return max(self.calls.away_seconds, self._claimer.refused_seconds)

    def _claim_more(self, lane: Lane, now: float) -> None:
        blamed = lane.health.blamed
        names = (lane.name, Again(lane.name))
        if blamed and any(self.queue.has_ready_of_others(name, *blamed) for name in names):
            self.lanes.make_way(lane)
        while size := lane.claim_size(now, self.settings.batch_size, self.settings.rate):
            taken = self._take(lane, size, now)
            if not taken:
                return
            lane.claim_begins(taken)
            self._tasks.start_soon(self._claim, lane, taken)

    def _take(self, lane: Lane, size: int, now: float) -> list[Taken]:
        """Take ready images of a lane out of the queue, no more than their owners may have."""
        taken: list[Taken] = []
        for name in lane.claim_order():
            if len(taken) < size:
                limits = lane.claim_limits(now, self.settings.batch_size)
                for image in taken:
                    if image.owner in limits:
                        limits[image.owner] -= 1
                taken += self.queue.take(name, size - len(taken), limits)
        return taken

    async def _look(self, taken: Sequence[Taken]) -> None:
        await apart(taken, self._claimer.look, self._refuse)
        self._looking = False
        self.wake()

    def _refuse(self, taken: Taken, error: Exception) -> None:
        """Park an image whose rows cannot be read; others that raise wait for a while."""
        if not self.queue.is_taken(taken.image_id):
            return  # it was dealt with before its batch raised
        if is_of_rows(error):
            self.settler.park(taken.image_id, taken.source, error)
        else:
            LOG.error("Image %s cannot be worked on", taken.image_id, exc_info=error)
            self._claimer.put_back([taken], UNKNOWN_LANE, after_seconds=_DEFECT_SECONDS)

    async def _claim(self, lane: Lane, taken: Sequence[Taken]) -> None:
        works: list[Work] = []

        async def claim(some: Sequence[Taken]) -> None:
            works.extend(await self._claimer.claim(lane, some))

        await apart(taken, claim, self._refuse)
        lane.claim_ends(taken, len(works))
        for work in works:
            self.leases.works[work.image_id] = work
            self._forward(work)
        self.wake()

    async def _work(self, lane: Lane, slot: Slot) -> None:
        try:
            await self.workers.work(lane, slot)
        except Exception:
            LOG.exception("A worker of store %s has ended", lane.name)
        finally:
            lane.end(slot)
            self._pump_lanes()

    def _forward(self, work: Work) -> None:
        """Send work to the lane of its next location, or end it where there is none."""
        store = work.next_store
        if store is not None and not work.lost and not self._draining:
            lane = self.lanes.of(store)
            if lane.health.blamed not in {None, (work.owner,)}:
                self.lanes.make_way(lane)
            if lane.takes(work.owner, self._clock.boot()) and not self._is_poor_probe(lane, work):
                lane.push(work)
                return
        self.settler.end(work)

    def _is_poor_probe(self, lane: Lane, work: Work) -> bool:
        """Whether a store that does not work would be probed with an image that failed before."""
        probing = lane.breaker.state is not State.CLOSED
        return probing and not work.first and self.queue.has_ready(lane.name)

    # -- the end

    async def _drain(self, seconds: float) -> None:
        """Release what was not begun and wait for what was."""
        self._draining = self.workers.stopping = True
        self.wake()  # the pump, for the last time: from here the event is only waited for below
        with anyio.move_on_after(seconds):
            while True:
                self.lanes.release()
                if not self.leases.works and not any(lane.claims for lane in self.lanes):
                    break
                self._changed = anyio.Event()
                await self._changed.wait()
        if self.leases.works:
            LOG.warning(
                "%s not settled within drain_timeout: another agent takes over when the claims run"
                " out",
                count(len(self.leases.works), "image was", "images were"),
            )


def _store_of(lane: Hashable) -> str:
    """The store of one of the queue's lanes."""
    return lane.store if isinstance(lane, Again) else str(lane)
