# SPDX-License-Identifier: Apache-2.0
"""Scrub what is due in the registry once, by the parts of an agent, and say what is left.

The registry is read, and what is due goes to the delay queue of a scrubber. Once that has tried all
of it, the registry is read again, until a reading finds nothing new to try. What that last reading
finds is what is left.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import anyio
from oslo_config import cfg

from evscrub.config.settings import scrubber_settings
from evscrub.domain import image_report
from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.domain.image_report import AgentReports, Listed
from evscrub.flow_control.circuit_breaker import State
from evscrub.queueing.delay_queue import DelayQueue, Source
from evscrub.registry import connecting
from evscrub.registry.causal import may_have_several_nodes
from evscrub.registry.claims import Claims
from evscrub.registry.database import Database
from evscrub.registry.gateway import RETRY_SECONDS, RegistryAwayError
from evscrub.registry.inventory import Inventory
from evscrub.scrubbing.context import Context, Observers
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.scrubbing.statistics import ScrubberStatistics
from evscrub.single_pass.account import Account
from evscrub.single_pass.portions import Fate, Knowledge, Portion, portions, unreadable
from evscrub.stores.backends import Stores
from evscrub.stores.names import StoreNames
from evscrub.telemetry.audit import Audit
from evscrub.telemetry.statistics import Scrubbed, Trouble

#: How long an image that was not tried yet may wait without any other being scrubbed: its store
#: does not work, or the database refuses claims.
_UNTRIED_SECONDS = 10.0
#: Images queued ahead of the scrubber; more would only take memory.
_AHEAD_IMAGES = 10_000
_PAGE_IMAGES = 500
_LOOK_SECONDS = 0.1
_OTHERS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Selection:
    """The images that a pass is limited to.

    :param owner: only images of this owner.
    :param store: only images with a pending location in this store.
    :param image_ids: only these images; empty for all.
    :param limit: at most this many images; None for any number.
    """

    owner: str | None = None
    store: str | None = None
    image_ids: Sequence[str] = ()
    limit: int | None = None

    def read(self, inventory: Inventory) -> Iterator[Listed]:
        """Yield the images, whatever their store."""
        yield from inventory.read(owner=self.owner, only=self.image_ids or None)

    def takes(self, found: Sequence[Portion]) -> bool:
        """Return whether an image with these portions is selected by its stores."""
        return self.store is None or any(portion.store == self.store for portion in found)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pass is.

    :param images: images scrubbed, or finished without a delete.
    :param size_bytes: bytes reclaimed.
    :param total: images found due so far.
    :param is_total_known: whether the registry has been read once.
    :param seconds: since the pass began.
    """

    images: int
    size_bytes: int
    total: int
    is_total_known: bool
    seconds: float


class SinglePass:
    """A pass, ready to run.

    :param conf: the whole configuration; must be ``cfg.CONF``.
    :param selection: the images that it is limited to.
    :param names: names the stores of locations.
    :param reports: turns the statistics of a scrubber and its images in trouble into reports.
    :param wait_seconds: failed images are tried again while their retry is due within this time,
        and nothing is waited for longer than this without an image being scrubbed.
    :raises ValueError: an option has a value that does not work.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        selection: Selection,
        names: StoreNames,
        reports: Callable[[Scrubber], AgentReports],
        wait_seconds: float,
    ) -> None:
        self._wait_seconds = wait_seconds
        self._drain_seconds = float(conf.scrubber.drain_timeout)
        self._selection = selection
        self._names = names
        self._reports = reports
        self._stores = load_stores(conf)
        answer_seconds = connecting.answer_seconds(conf.scrubber.claim_timeout)
        database = Database(conf, answer_seconds=answer_seconds)
        database.probe()
        self._clock = Clock()
        self._audit = Audit(conf, self._clock.wall) if conf.audit.notify else None
        self._database_clock = DatabaseClock(
            self._clock, several_nodes=may_have_several_nodes(database)
        )
        # An image that another process has claimed is not waited for.
        settings = replace(scrubber_settings(conf), horizon_seconds=0.0)
        self._context = Context.create(settings, database, self._database_clock)
        self._queue = DelayQueue(conf.queue.max_entries, origin=self._database_clock.now())
        self._scrubber = Scrubber(
            self._queue,
            Claims(database, self._database_clock),
            self._stores,
            self._context,
            Observers(self._scrubbed, self._parked),
        )
        self._unreadable: list[str] = []
        self._inventory = Inventory(database, _PAGE_IMAGES, self._unreadable.append)
        self._began = self._progressed_at = self._clock.boot()
        self._done = 0
        self._fed = 0
        self._readings = 0
        self._is_stuck = False

    def progress(self) -> Progress:
        """Return how far the pass is."""
        record = self._scrubber.statistics().record
        return Progress(
            self._done,
            sum(record.bytes_reclaimed.values()),
            self._fed,
            self._readings > 0,
            self._clock.boot() - self._began,
        )

    async def run(self, stop: anyio.Event) -> Account | None:
        """Scrub until nothing is left that can be scrubbed now, or until `stop`.

        :returns: what is left of the selection; None if `stop` came first.
        :raises RegistryAwayError: the registry could not be read for as long as the pass waits.
        """
        account = None
        drain = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run_scrubber, drain)
            if self._audit is not None:
                tasks.start_soon(self._audit.run)
            try:
                async with anyio.create_task_group() as working:
                    working.start_soon(_cancel_at, stop, working.cancel_scope)
                    account = await self._scrub()
                    working.cancel_scope.cancel()
            finally:
                drain.set()
        return account

    async def _run_scrubber(self, drain: anyio.Event) -> None:
        await self._scrubber.run(self._drain_seconds, drain)
        if self._audit is not None:
            await self._audit.finish()

    def _scrubbed(self, image: Scrubbed) -> None:
        if self._audit is not None and image.data_went:
            self._audit.scrubbed(image)

    def _parked(self, image_id: str, trouble: Trouble) -> None:
        if self._audit is not None:
            self._audit.failed(image_id, trouble)

    async def _scrub(self) -> Account:
        """Read and scrub until a reading finds nothing new to try; return what that found."""
        self._began = self._progressed_at = self._clock.boot()
        while True:
            before = self._done, self._scrubber.failed_images
            began = self._clock.boot()
            try:
                account, new, claimed = await self._read()
            except RegistryAwayError:
                if self._is_over(self._wait_seconds):
                    raise
                await anyio.sleep(RETRY_SECONDS)
                continue
            self._readings += 1
            if not new:
                if not claimed or self._is_over(self._wait_seconds):
                    return account
                # A large registry takes long to read: do not keep it busy.
                await anyio.sleep(max(_OTHERS_SECONDS, 5 * (self._clock.boot() - began)))
                continue
            await self._until_tried()
            # So that an image that is neither scrubbed nor in trouble is not queued for ever.
            self._is_stuck = before == (self._done, self._scrubber.failed_images)

    async def _read(self) -> tuple[Account, int, int]:
        """Read the selected images, and queue those that are due and were not tried yet.

        :returns: the other images; how many were queued; how many of the others another process
            has claimed.
        """
        account, new, claimed = Account(), 0, 0
        self._unreadable.clear()
        found = self._selection.read(self._inventory)
        known = self._knowledge()
        while chunk := await self._context.calls.call(_next_page, found):
            for seen in chunk:
                of_image = list(portions(seen, known))
                if not of_image or not self._selection.takes(of_image):
                    continue
                if self._may_queue(of_image):
                    new += 1
                    self._fed += 1
                    self._queue.add(
                        seen.image.id,
                        self._database_clock.now(),
                        owner=seen.image.owner,
                        source=Source.SWEEP,
                    )
                    continue
                claimed += of_image[0].state == image_report.CLAIMED
                for portion in of_image:
                    account.add(self._left(portion))
            self._scrubber.wake()
            await self._until_room()
        for image_id in self._unreadable:
            account.add(unreadable(image_id))
        return account, new, claimed

    def _may_queue(self, of_image: Sequence[Portion]) -> bool:
        image_id = of_image[0].image_id
        return (
            any(portion.fate in {Fate.GOES, Fate.FINISHED} for portion in of_image)
            and not self._is_stuck
            and image_id not in self._queue
            and not self._scrubber.is_in_trouble(image_id)
            and (self._selection.limit is None or self._fed < self._selection.limit)
        )

    def _left(self, portion: Portion) -> Portion:
        """Return the portion as what is left: what would go was not scrubbed."""
        if portion.fate not in {Fate.GOES, Fate.FINISHED}:
            return portion
        reason = portion.reason if portion.fate is Fate.GOES else ""
        limit = self._selection.limit
        if not reason:
            full = limit is not None and self._fed >= limit
            reason = "beyond --limit" if full else "not scrubbed yet"
        return replace(portion, fate=Fate.STAYS, reason=reason)

    def _knowledge(self) -> Knowledge:
        return Knowledge(
            self._context.settings.policy,
            self._reports(self._scrubber),
            self._names.of,
            self._stores.resolve,
            frozenset(self._stores.names) - frozenset(self._stores.deletable),
        )

    async def _until_room(self) -> None:
        room = min(_AHEAD_IMAGES, self._queue.capacity // 2)
        while len(self._queue) > room and self._is_trying():  # noqa: ASYNC110 - no event for all of it
            await anyio.sleep(_LOOK_SECONDS)

    async def _until_tried(self) -> None:
        """Wait until each queued image is scrubbed, or cannot be scrubbed now."""
        while self._is_trying():  # noqa: ASYNC110 - no event for all of it
            await anyio.sleep(_LOOK_SECONDS)

    def _is_trying(self) -> bool:
        statistics = self._scrubber.statistics()
        self._note_progress(statistics)
        queue = self._queue.statistics()
        if queue.taken or statistics.unsettled:
            return True
        paused = sum(
            lane.ready for lane in statistics.lanes if lane.health.breaker is State.FORCED_OPEN
        )
        untried = queue.ready + queue.waiting - paused
        untried -= self._scrubber.failed_images
        next_retry = self._queue.next_advance()
        if next_retry is not None:
            is_soon = next_retry - self._database_clock.now() <= self._wait_seconds
            if is_soon and not self._is_over(self._wait_seconds):
                return True
        return untried > 0 and not self._is_over(max(self._wait_seconds, _UNTRIED_SECONDS))

    def _note_progress(self, statistics: ScrubberStatistics) -> None:
        done = statistics.record.scrubbed + sum(statistics.record.finished.values())
        if done != self._done:
            self._done, self._progressed_at = done, self._clock.boot()

    def _is_over(self, seconds: float) -> bool:
        """Return whether no image was scrubbed for so long."""
        return self._clock.boot() - self._progressed_at >= seconds


def load_stores(conf: cfg.ConfigOpts, *, create: bool = True) -> Stores:
    """Load the enabled stores.

    :param create: whether the missing directories of acknowledged stores are created.
    :raises ValueError: no store is enabled.
    """
    options = conf.scrubber
    return Stores(
        conf,
        (lambda: options.acknowledged_stores) if create else frozenset,
        options.allowed_places,
        options.separate_stores,
    )


def _next_page(found: Iterator[Listed]) -> list[Listed]:
    return list(islice(found, _PAGE_IMAGES))


async def _cancel_at(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
