# SPDX-License-Identifier: Apache-2.0
"""Scrub what is due in the registry once, by the parts of an agent, and say what is left.

The registry is read, and what is due goes to the delay queue of a scrubber. Once that has tried all
of it, the registry is read again, until a reading finds nothing new to try. What that last reading
finds is what is left.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import islice

import anyio
from oslo_config import cfg

from evscrub.config.settings import scrubber_settings
from evscrub.coordination.member import GroupMember, GroupSettings, group_settings
from evscrub.domain import image_report
from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.domain.decisions import ImageRow
from evscrub.domain.image_report import AgentReports, Listed
from evscrub.flow_control.circuit_breaker import State
from evscrub.queueing.delay_queue import Added, DelayQueue, Source
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
from evscrub.single_pass.portions import (
    BEYOND_LIMIT,
    Knowledge,
    Portion,
    as_of,
    is_scrubbable,
    left,
    portions,
    unreadable,
)
from evscrub.single_pass.selection import Selection
from evscrub.single_pass.stores import load_stores, store_of
from evscrub.stores.names import StoreNames
from evscrub.telemetry.audit import Audit
from evscrub.telemetry.statistics import RecordStatistics, Scrubbed, Trouble

#: How long an image that was not tried yet may wait without any other being scrubbed: its store
#: does not work, or the database refuses claims.
_UNTRIED_SECONDS = 10.0
#: Images queued ahead of the scrubber; more would only take memory.
_AHEAD_IMAGES = 10_000
_PAGE_IMAGES = 500
_LOOK_SECONDS = 0.1
_OTHERS_SECONDS = 1.0


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


@dataclass(slots=True)
class _Reading:
    """What a reading of the registry found.

    :param account: the images that were not queued by it.
    :param trying: images that it queued, and those that the scrubber has not tried yet.
    :param claimed: images that another process has claimed.
    """

    account: Account = field(default_factory=Account)
    trying: int = 0
    claimed: int = 0


class SinglePass:
    """A pass, ready to run.

    :param conf: the whole configuration; must be ``cfg.CONF``.
    :param selection: the images that it is limited to.
    :param names: names the stores of locations.
    :param reports: turns the statistics of a scrubber and its images in trouble into reports.
    :param wait_seconds: failed images are tried again while their retry is due within this time,
        and nothing is waited for longer than this without an image being scrubbed.
    :param paused: reasons of stores that agents have paused, which are left alone.
    :raises ValueError: an option has a value that does not work.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        selection: Selection,
        names: StoreNames,
        reports: Callable[[Scrubber], AgentReports],
        wait_seconds: float,
        paused: Mapping[str, str],
    ) -> None:
        self._wait_seconds = wait_seconds
        self._paused = paused
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
        settings = replace(scrubber_settings(conf), horizon_seconds=0.0, trusts_few_missing=False)
        self._context = Context.create(settings, database, self._database_clock)
        self._queue = DelayQueue(conf.queue.max_entries, origin=self._database_clock.now())
        self._scrubber = Scrubber(
            self._queue,
            Claims(database, self._database_clock),
            self._stores,
            self._context,
            Observers(self._scrubbed, self._parked),
        )
        self._share_seconds = 0.0
        group = group_settings(conf)
        self._group = None if group is None else self._member_of(group)
        self._unreadable: list[str] = []
        self._inventory = Inventory(database, _PAGE_IMAGES, self._unreadable.append)
        self._began = self._progressed_at = self._clock.boot()
        self._done = 0
        self._fed = 0
        self._readings = 0
        self._due_before: datetime | None = None

    def progress(self) -> Progress:
        """Return how far the pass is."""
        record = self._scrubber.statistics().record
        return Progress(
            _done(record),
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
        async with anyio.create_task_group() as membership:
            if self._group is not None:
                membership.start_soon(self._group.run)
            account = await self._work(stop)
            membership.cancel_scope.cancel()
        return account

    def _member_of(self, group: GroupSettings) -> GroupMember:
        self._share_seconds = group.membership_seconds + group.settle_seconds
        return GroupMember(
            group,
            self._clock,
            self._context.share,
            lambda: None,  # a pass does not consume from the bus
            self._scrubber.take_share,
        )

    async def _until_share(self) -> None:
        """Wait for the first share of limits that a group of agents shares."""
        if not self._context.may_begin:
            with anyio.move_on_after(self._share_seconds):
                await self._context.share.wait()

    async def _work(self, stop: anyio.Event) -> Account | None:
        account = None
        drain = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run_scrubber, drain)
            if self._audit is not None:
                tasks.start_soon(self._audit.run)
            try:
                async with anyio.create_task_group() as working:
                    working.start_soon(_cancel_at, stop, working.cancel_scope)
                    await self._until_share()
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
        """Read and scrub until a reading finds nothing to try; return what that found."""
        self._began = self._progressed_at = self._clock.boot()
        is_last = was_idle = False
        while True:
            began = self._clock.boot()
            try:
                reading = await self._read(queue=not is_last)
            except RegistryAwayError:
                await self._until_tried()
                if self._is_over(self._wait_seconds):
                    raise
                await anyio.sleep(RETRY_SECONDS)
                continue
            self._readings += 1
            if is_last or not (reading.trying or reading.claimed):
                return reading.account
            read_seconds = self._clock.boot() - began
            if reading.trying:
                await self._until_tried()
            # Images may be due again at once after a try, as orphans are while Glance imports.
            is_idle = self._progressed_at <= began
            if (was_idle and is_idle) or not reading.trying:
                # A large registry takes long to read: do not keep it busy.
                await anyio.sleep(max(_OTHERS_SECONDS, 5 * read_seconds))
            self._look_for_progress()
            longest_seconds = max(self._wait_seconds, _UNTRIED_SECONDS if reading.trying else 0.0)
            was_idle, is_last = is_idle, self._is_over(longest_seconds)

    async def _read(self, *, queue: bool) -> _Reading:
        """Read the selected images, and queue those that were due when the pass began.

        :param queue: False to queue none.
        """
        reading = _Reading()
        self._unreadable.clear()
        found = self._selection.read(self._inventory)
        known = self._knowledge()
        while chunk := await self._context.calls.call(_next_page, found):
            if self._due_before is None:
                self._due_before = chunk[0].now
            for seen in chunk:
                of_image = [as_of(one, self._due_before) for one in portions(seen, known)]
                failed = self._scrubber.is_in_trouble(seen.image.id)
                # What is left of an image that failed counts, whatever its stores.
                if not of_image or not (failed or self._selection.takes(of_image)):
                    continue
                if seen.image.id in self._queue and not failed:
                    reading.trying += 1
                elif queue and not failed and self._may_queue(of_image):
                    reading.trying += 1
                    self._queue_image(seen.image)
                    continue
                elif of_image[0].state == image_report.CLAIMED:
                    reading.claimed += 1
                for portion in of_image:
                    reading.account.add(left(portion, self._why_left))
            self._scrubber.wake()
            await self._until_room()
        for image_id in self._unreadable:
            reading.account.add(unreadable(image_id))
        return reading

    def _may_queue(self, of_image: Sequence[Portion]) -> bool:
        limit = self._selection.limit
        return (
            is_scrubbable(of_image)
            and not any(portion.store in self._paused for portion in of_image)
            and (limit is None or self._fed < limit)
        )

    def _queue_image(self, image: ImageRow) -> None:
        now = self._database_clock.now()
        added = self._queue.add(image.id, now, owner=image.owner, source=Source.SWEEP)
        self._fed += added is Added.NEW

    @property
    def _why_left(self) -> str:
        limit = self._selection.limit
        return "not scrubbed yet" if limit is None or self._fed < limit else BEYOND_LIMIT

    def _knowledge(self) -> Knowledge:
        own = self._reports(self._scrubber)
        return Knowledge(
            self._context.settings.policy,
            replace(own, stores={**self._paused, **own.stores}),
            partial(store_of, self._stores, self._names),
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
        statistics = self._look_for_progress()
        queue = self._queue.statistics()
        is_stuck = self._is_over(max(self._wait_seconds, _UNTRIED_SECONDS))
        if queue.taken or statistics.unsettled:
            is_put_off = queue.taken == statistics.unsettled == statistics.put_off
            return not (is_stuck and (statistics.registry.is_away or is_put_off))
        paused = sum(
            lane.ready for lane in statistics.lanes if lane.health.breaker is State.FORCED_OPEN
        )
        # Of the images that wait, failed ones wait for their retry, others for their owner's turn.
        is_untried = queue.ready > paused or queue.waiting > self._scrubber.failed_images
        next_retry = self._queue.next_advance()
        if next_retry is not None:
            is_soon = next_retry - self._database_clock.now() <= self._wait_seconds
            if is_soon and not self._is_over(self._wait_seconds):
                return True
        return is_untried and not is_stuck

    def _look_for_progress(self) -> ScrubberStatistics:
        statistics = self._scrubber.statistics()
        done = _done(statistics.record)
        if done != self._done:
            self._done, self._progressed_at = done, self._clock.boot()
        return statistics

    def _is_over(self, seconds: float) -> bool:
        """Return whether no image was scrubbed for so long."""
        return self._clock.boot() - self._progressed_at >= seconds


def _done(record: RecordStatistics) -> int:
    """Return the number of images that were scrubbed, or finished without a delete."""
    return record.scrubbed + sum(record.finished.values())


def _next_page(found: Iterator[Listed]) -> list[Listed]:
    return list(islice(found, _PAGE_IMAGES))


async def _cancel_at(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
