# SPDX-License-Identifier: Apache-2.0
"""The consumer of a delay queue: starts the steps of the pipeline when there is work for them."""

from collections.abc import Awaitable, Callable, Collection, Sequence

import anyio
from anyio.abc import TaskGroup
from oslo_log import log as logging

from evscrub.config.settings import Settings
from evscrub.domain.words import count
from evscrub.flow_control.owner_limit import OwnerLimit
from evscrub.queueing.delay_queue import DelayQueue, Taken
from evscrub.registry.claims import Claims
from evscrub.scrubbing.claimer import Claimer
from evscrub.scrubbing.context import NOBODY, Context, Observers
from evscrub.scrubbing.deleter import Deleter
from evscrub.scrubbing.lanes import Lanes
from evscrub.scrubbing.last_look import LastLook
from evscrub.scrubbing.lease_keeper import LeaseKeeper
from evscrub.scrubbing.pipeline import Pipeline
from evscrub.scrubbing.retries import Retried, Retries
from evscrub.scrubbing.scheduler import LOOK_SIZE, Scheduler
from evscrub.scrubbing.settler import Settler
from evscrub.scrubbing.statistics import ScrubberStatistics
from evscrub.scrubbing.witnesses import Witnesses
from evscrub.scrubbing.workers import Workers
from evscrub.stores.backends import Stores
from evscrub.telemetry.statistics import ImagesInTrouble, TroubleStatistics

LOG = logging.getLogger(__name__)

#: Least time between two turns of the loop: one for each delete would cost more than the delete.
_PUMP_SECONDS = 0.005

#: Least time from the start of a look to the next one, unless it was full: a look at few images
#: costs nearly as much as one at many. Without an owner_rate this delays no image of an event where
#: scrub_time is longer than it and the second by which events are looked at early; with an
#: owner_rate, images are looked at again when they are due.
_LOOK_SECONDS = 0.3


class Scrubber:
    """The consumer of a delay queue.

    :param queue: due times in it are by the database's clock, seconds since the epoch.
    """

    def __init__(
        self,
        queue: DelayQueue,
        claims: Claims,
        stores: Stores,
        context: Context,
        observers: Observers = NOBODY,
    ) -> None:
        self._queue = queue
        self._context = context
        self._configured = context.settings  # before they are divided by the share
        self._record = context.record
        self._leases = LeaseKeeper(claims, context)
        self._lanes = Lanes(stores.deletable, queue, context)
        owners = OwnerLimit(context.settings.owner_rate)
        self._claimer = Claimer(queue, claims, stores, self._leases, owners, context)
        self._settler = Settler(queue, claims, self._leases, observers, context)
        self._scheduler = Scheduler(queue, self._lanes, owners, context)
        self._retries = Retries(queue, self._lanes, context)
        self._witnesses = Witnesses(self._claimer.witness_finder.find, stores, context)
        last_look = LastLook(self._claimer.look_again, context)
        deleter = Deleter(stores, self._leases, last_look, self._witnesses, context)
        self._workers = Workers(deleter.delete)
        self._pipeline = Pipeline(
            self._claimer, self._lanes, deleter, self._settler, self._scheduler, self._workers
        )
        self._looking = False
        self._draining = False
        self._tasks: TaskGroup

    # -- interface to the other parts of the agent

    @property
    def settings(self) -> Settings:
        return self._context.settings

    def statistics(self) -> ScrubberStatistics:
        """Return the parts' statistics; the cost does not grow with the images in trouble."""
        return ScrubberStatistics(
            settings=self.settings,
            configured=self._configured,
            record=self._record.statistics(),
            lanes=self._lanes.statistics(),
            running=self._lanes.running,
            leases=self._leases.statistics(self._context.database_clock.now()),
            unsettled=len(self._settler) + self._settler.put_off,
            put_off=self._settler.put_off,
            registry=self._context.calls.statistics(),
            proofs=self._witnesses.proofs(),
        )

    def trouble_statistics(self, shown: int) -> TroubleStatistics:
        """Count the images in trouble; see :meth:`Record.trouble_statistics`."""
        return self._record.trouble_statistics(shown)

    def images_in_trouble(self) -> ImagesInTrouble:
        """Return a copy of the records of all images in trouble."""
        return self._record.images_in_trouble()

    def is_in_trouble(self, image_id: str) -> bool:
        """Return whether an image has failed and waits for its retry."""
        return image_id in self._record.troubles

    @property
    def failed_images(self) -> int:
        """Number of images that have failed and wait for their retry."""
        return len(self._record.troubles)

    def awaiting_retry(self) -> int:
        """Count the failed images whose next try is not due. O(failed)."""
        return sum(map(self._queue.is_waiting, self._record.troubles))

    def sweep_begins(self) -> None:
        """Prepare for a full sweep: forget damaged images that the last one did not find."""
        self._record.sweep_begins()

    def bus_changed(self, *, joined: bool) -> None:
        """Record whether the bus announces images from now on.

        :param joined: whether the listener is connected.
        """
        self._settler.bus_since = self._context.database_clock.now() if joined else None

    async def try_parked(self, stores: Collection[str]) -> int:
        """Retry the images that were parked because these stores could not be used.

        :returns: the number of images.
        """
        return await self._retries.unusable(stores)

    async def retry_images(self, image_ids: Sequence[str]) -> Retried:
        """Look at failed images now; see :meth:`evscrub.scrubbing.retries.Retries.images`."""
        return await self._retries.images(image_ids)

    async def retry_stores(self, names: Collection[str] | None) -> Retried:
        """Look at all failed images of stores now, or at all failed images if `names` is None.

        See :meth:`evscrub.scrubbing.retries.Retries.stores`.
        """
        return await self._retries.stores(names)

    def wake(self) -> None:
        """Wake the loop, for instance after images were added to the queue."""
        self._context.wakeup.set()

    def change(self, settings: Settings) -> None:
        """Apply changed options at once."""
        old, self._context.settings = self._context.settings, self._shared(settings)
        self._configured = settings
        moved = (settings.policy.scrub_time - old.policy.scrub_time).total_seconds()
        if moved < 0:
            # Images that are looked at or claimed too early learn their due time from the registry.
            self._queue.shift(moved)
        self._claimer.change()
        self._lanes.change(self.settings)
        self.wake()

    def take_share(self) -> bool:
        """Apply the agent's share of the limits, after it changed.

        Without a share, jobs that have not started are released: other agents may have one.

        :returns: whether the limits are kept already, rather than exceeded by running deletes.
        """
        settings = self._shared(self._configured)
        if settings != self.settings:
            self._context.settings = settings
            self._claimer.change()
            self._lanes.share(settings)
        if not self._context.may_begin:
            self._pipeline.settle(*self._lanes.drain())
        self.wake()
        return self._lanes.keeps_limits or not settings.shared_concurrency

    def _shared(self, settings: Settings) -> Settings:
        """Return the settings for this agent's share; without a share it only waits."""
        part = self._context.share.part
        return settings.of_share(part) if part else settings

    # -- running

    async def run(self, drain_seconds: float, stop: anyio.Event) -> None:
        """Scrub until `stop`, then finish the running deletes and release the other jobs.

        :param drain_seconds: how long to wait for running deletes after `stop`.
        """
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._pump)
                tasks.start_soon(self._finish_deletes)
                renewal = self._claimer.index_renewal
                for part in (self._settler, self._leases, self._context.calls, renewal):
                    tasks.start_soon(part.run)
                await stop.wait()
                await self._drain(drain_seconds)
                tasks.cancel_scope.cancel()
        finally:
            self._workers.close()

    async def _pump(self) -> None:
        while not self._draining:
            began = self._context.clock.boot()
            self._context.wakeup.clear()
            self._queue.advance(self._context.database_clock.now())
            self._lanes.unblock(began)
            self._lanes.close_idle_breakers(self._leases.jobs)
            self._start_look()
            self._start_deletes()
            self._start_claims()
            pause = self._pause_seconds or self._scheduler.pause_seconds()
            await self._context.wakeup.wait(pause)
            await anyio.sleep(max(0.0, began + _PUMP_SECONDS - self._context.clock.boot()))

    def _start_look(self) -> None:
        may_look = not self._looking and self._may_ask_registry()
        if may_look and (taken := self._scheduler.images_to_look_at()):
            self._looking = True
            self._tasks.start_soon(self._look, taken)

    async def _look(self, taken: Sequence[Taken]) -> None:
        began = self._context.clock.boot()
        await self._do(self._pipeline.look, taken)
        if len(taken) < LOOK_SIZE:
            await anyio.sleep(max(0.0, began + _LOOK_SECONDS - self._context.clock.boot()))
        self._looking = False
        self.wake()

    def _start_deletes(self) -> None:
        """Give claimed images to workers."""
        while (begun := self._lanes.next_batch(self._context.clock.boot())) is not None:
            if self._pipeline.may_delete(*begun):
                self._pipeline.delete(*begun)
            else:
                self._tasks.start_soon(self._do, self._pipeline.prepare, *begun)

    def _start_claims(self) -> None:
        """Claim more images for lanes that need them."""
        # Do not claim while settlements pile up: the registry is not accepting them.
        if self._may_ask_registry() and len(self._settler) <= 2 * self.settings.batch_size:
            for lane, taken in self._scheduler.claims():
                self._tasks.start_soon(self._do, self._pipeline.claim, lane, taken)

    async def _finish_deletes(self) -> None:
        while True:
            for ended in await self._pipeline.deleted():
                if self._pipeline.may_finish(*ended):
                    self._pipeline.finish(*ended)
                else:
                    self._tasks.start_soon(self._do, self._pipeline.prove, *ended)
            self._go_on()

    async def _do(self, step: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run a step, then start what the step made possible."""
        await step(*arguments)
        self._go_on()

    def _go_on(self) -> None:
        """Start deletes at once, and wake the loop for all else."""
        if not self._draining:
            self._start_deletes()
        self.wake()

    def _may_ask_registry(self) -> bool:
        return not self._draining and not self._pause_seconds

    @property
    def _pause_seconds(self) -> float:
        """How long to make no registry calls, seconds."""
        return max(self._context.calls.away_seconds, self._claimer.refused_seconds)

    async def _drain(self, seconds: float) -> None:
        """Release jobs that have not started, and wait for the others, at most `seconds`."""
        self._draining = self._scheduler.draining = True
        self.wake()  # end the pump: only the loop below waits for the wake-up from here
        with anyio.move_on_after(seconds):
            while True:
                self._pipeline.settle(*self._lanes.release())
                is_claiming = any(lane.claiming.count for lane in self._lanes)
                if len(self._leases.jobs) == self._settler.stuck and not is_claiming:
                    break
                self._context.wakeup.clear()
                await self._context.wakeup.wait(seconds)
        if self._leases.jobs:
            LOG.warning(
                "%s not settled within drain_timeout: another agent takes over when the claims"
                " expire",
                count(len(self._leases.jobs), "image was", "images were"),
            )
