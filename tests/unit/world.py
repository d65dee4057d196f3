# SPDX-License-Identifier: Apache-2.0
"""A registry and stores in memory, and a scrubber on them, in simulated time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import pytest

from evscrub.config.settings import Settings
from evscrub.domain.clock import Clock, DatabaseClock, Moment
from evscrub.domain.decisions import (
    UNKNOWN,
    Decision,
    ImageRow,
    Kind,
    Leave,
    LocationRow,
    Policy,
    Scrub,
)
from evscrub.domain.proof import Presence
from evscrub.domain.retry_policy import Delays
from evscrub.domain.verdict import GONE, Outcome, Verdict
from evscrub.queueing.delay_queue import DelayQueue, Source
from evscrub.registry.claims import Claim, Renewal, Seen, Settlement, Sight
from evscrub.scrubbing.batch import Batch
from evscrub.scrubbing.context import Context
from evscrub.scrubbing.deleter import Deleter
from evscrub.scrubbing.job import Job, Lease
from evscrub.scrubbing.lane import Lane
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.scrubbing.witnesses import Witness
from evscrub.scrubbing.workers import Workers
from evscrub.stores.backends import Target
from tests.unit.simulated_loop import run

T = TypeVar("T")


THROTTLED = Verdict(Outcome.TRANSIENT, "throttled")
#: As the store gives it, with the exception's class.
NOT_FOUND = Verdict(Outcome.GONE, "not_found", "NotFound")
DOWN = Verdict(Outcome.TRANSIENT, "connection")
#: What a store does about a delete at a time: how long it takes, and what comes of it.
Behavior = Callable[[float], tuple[float, Verdict]]

REGISTRY_SECONDS = 0.01
EPOCH = datetime(1970, 1, 1)
SETTINGS = Settings(
    policy=Policy(scrub_time=timedelta(0), claim_timeout=timedelta(seconds=120)),
    concurrency=16,
    rate=0.0,
    burst=1.0,
    batch_size=100,
    delays=Delays(initial=5, longest=600, in_use=1800, parked=3600),
    horizon_seconds=7200,
    not_found_limit=20,
)


def fast(_now: float) -> tuple[float, Verdict]:
    return 0.02, GONE


def missing(_now: float) -> tuple[float, Verdict]:
    return 0.3, NOT_FOUND


def instant(_now: float) -> tuple[float, Verdict]:
    return 0, GONE


def down(_now: float) -> tuple[float, Verdict]:
    return 0.05, DOWN


def new_job(name: str = "i", owner: str | None = "o") -> Job:
    """A job without locations."""
    claim = Claim(ImageRow(name, owner, 1, "deleted", True, EPOCH), Kind.PENDING, (), EPOCH)
    return Job(claim, Lease(EPOCH, Moment(0, 0)), 0.0, Source.EVENT)


@dataclass(frozen=True)
class Asked:
    """A delete that a store was asked for."""

    at: float
    image_id: str
    owner: str | None
    store: str
    verdict: Verdict


class Throttle:
    """A store that refuses what is above a rate, as a bucket of a fifth of a second."""

    def __init__(self, rate: float, seconds: float = 0.02) -> None:
        self.rate = rate
        self._seconds = seconds
        self._tokens = rate / 5
        self._filled = 0.0

    def __call__(self, now: float) -> tuple[float, Verdict]:
        self._tokens = min(self.rate / 5, self._tokens + (now - self._filled) * self.rate)
        self._filled = now
        if self._tokens < 1:
            return 0.005, THROTTLED
        self._tokens -= 1
        return self._seconds, GONE


class World:
    """A registry and stores in memory, and a scrubber on them.

    :param stores: what each store does.
    """

    def __init__(self, settings: Settings = SETTINGS, **stores: Behavior) -> None:
        self.settings = settings
        #: How long the registry takes for each call.
        self.registry_seconds = REGISTRY_SECONDS
        self.stores = stores
        self.asked: list[Asked] = []
        self.under_way: Counter[str] = Counter()
        self.most_under_way: Counter[str] = Counter()
        self.database = None
        self._images: dict[str, tuple[ImageRow, list[LocationRow]]] = {}
        self._leases: dict[str, datetime] = {}
        self._stale: set[str] = set()
        #: What the store says of some images, whatever it says of others.
        self.of_images: dict[str, Behavior] = {}
        self._row = 0
        #: What the rows of some images say, whatever became of them here.
        self.decisions: dict[str, Decision] = {}
        #: What stores with live images say of them.
        self.live: dict[str, Callable[[float], Presence]] = {}
        self.questions = 0

    def add(
        self,
        owner: str,
        *stores: str,
        place: str = "",
        stale: bool = False,
        given_back: bool = False,
    ) -> str:
        """Make a deleted image with a location in each of the stores.

        :param place: the part of the store that it is in.
        :param stale: whether an agent that died had claimed it.
        :param given_back: whether an agent tried to delete it and failed.
        """
        image_id = f"00000000-0000-4000-8000-{len(self._images):012x}"
        rows = []
        for store in stores:
            self._row += 1
            url = f"{store}://{place}/{image_id}"
            rows.append(LocationRow(self._row, url, store, "pending_delete", True, EPOCH, EPOCH))
        image = ImageRow(image_id, owner, 1, "pending_delete", True, EPOCH)
        self._images[image_id] = (image, rows)
        if stale:
            self._stale.add(image_id)
        if stale or given_back:
            self._set(image_id, "deleted")
        return image_id

    def finish(self, image_id: str) -> None:
        """Finish an image as another agent does."""
        image, _ = self._images[image_id]
        self._images[image_id] = (image._replace(status="deleted"), [])

    @property
    def images(self) -> list[str]:
        return list(self._images)

    def status(self, image_id: str) -> str:
        """The image's status, or, of a deleted one that has a location left, who has it."""
        image, rows = self._images[image_id]
        if image.status != "deleted" or not rows:
            return image.status
        return "claimed" if image_id in self._leases else "given back"

    def statuses(self) -> Counter[str]:
        return Counter(map(self.status, self._images))

    def left(self, image_id: str) -> set[str | None]:
        """The stores of the locations that an image has left."""
        return {row.store for row in self._images[image_id][1]}

    def run(
        self,
        until: float,
        meanwhile: Callable[[Scrubber], Any] | None = None,
        *,
        drain: float = 10.0,
        idle: bool = False,
    ) -> float:
        """Scrub until so many seconds, or until nothing is left; returns the time.

        :param idle: go on although nothing is left.
        """

        async def main() -> float:
            clock = Clock(anyio.current_time, anyio.current_time)
            queue = DelayQueue(100_000)
            claims: Any = self
            context = Context.create(self.settings, claims.database, DatabaseClock(clock))
            scrubber = Scrubber(queue, claims, claims, context)
            shared: Any = self
            scrubber._claimer._shared_urls = shared
            scrubber._witnesses._find = self.find_witnesses
            for image, _ in self._images.values():
                queue.add(image.id, 0.0, owner=image.owner)
            stop = anyio.Event()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(scrubber.run, drain, stop)
                if meanwhile is not None:
                    tasks.start_soon(meanwhile, scrubber)
                while (now := anyio.current_time()) < until and (  # noqa: ASYNC110 - no event
                    idle or len(queue) + queue.statistics().taken
                ):
                    # Every 0.1 s, this loop would take most of what a simulated hour takes.
                    await anyio.sleep(min(until - now, max(0.1, now / 100)))
                ended = anyio.current_time()
                stop.set()
            return ended

        random.seed(0)
        with simulated_threads(self.registry_seconds):
            return run(main)

    # -- as the registry

    def look(self, image_ids: Collection[str], policy: Policy) -> Seen:
        sights = {}
        for image_id in image_ids:
            if image_id not in self._images:
                sights[image_id] = Sight(None, Leave(UNKNOWN))
                continue
            image, rows = self._images[image_id]
            kind = Kind.PENDING if image.status == "pending_delete" else Kind.HANDED_BACK
            if image_id in self._stale:
                kind = Kind.EXPIRED
            wanted = rows and image_id not in self._leases
            decision = Scrub(kind, tuple(rows)) if wanted else Leave(UNKNOWN)
            sights[image_id] = Sight(image, self.decisions.get(image_id, decision))
        return Seen(self._now(), sights)

    def claim(self, image_ids: Collection[str], policy: Policy) -> Seen:
        seen = self.look(image_ids, policy)
        claims = []
        for image_id, sight in seen.sights.items():
            if isinstance(sight.decision, Scrub) and sight.image is not None:
                rows = sight.decision.locations
                claims.append(Claim(sight.image, sight.decision.kind, rows, seen.now))
                self._leases[image_id] = seen.now
                self._set(image_id, "deleted")
        return Seen(seen.now, seen.sights, claims)

    def renew(self, held: Collection[tuple[Claim, datetime]]) -> Renewal:
        kept = [claim for claim, lease in held if self._leases.get(claim.image.id) == lease]
        self._leases |= dict.fromkeys([claim.image.id for claim in kept], self._now())
        return Renewal(self._now(), [claim.image.id for claim in kept], [])

    def settle(
        self, settlements: Sequence[Settlement], _claim_timeout: timedelta
    ) -> Collection[str]:
        for settlement in settlements:
            image, rows = self._images[settlement.image_id]
            self._images[image.id] = (image, [r for r in rows if r.id not in settlement.gone])
            if settlement.left and self._leases.get(image.id) == settlement.lease:
                del self._leases[image.id]
                self._stale.discard(image.id)
                if settlement.whole:
                    self._set(image.id, "pending_delete")
        return ()

    def among(self, _rows: Collection[LocationRow]) -> dict[int, Verdict]:
        return {}

    def find_witnesses(self, store: str, part: str) -> list[Witness]:
        if store not in self.live:
            return []
        return [Witness("live", 0, Target(store, f"{store}://{part}/live", store), 1)]

    def _set(self, image_id: str, status: str) -> None:
        image, rows = self._images[image_id]
        self._images[image_id] = (image._replace(status=status), rows)

    def _now(self) -> datetime:
        return EPOCH + timedelta(seconds=anyio.current_time())

    # -- as the stores

    @property
    def names(self) -> list[str]:
        return list(self.stores)

    @property
    def deletable(self) -> list[str]:
        return list(self.stores)

    def resolve(self, row: LocationRow) -> Target:
        assert row.store is not None
        endpoint = row.value.rpartition("/")[0]
        return Target(row.store, row.value, row.store, endpoint=endpoint)

    def are_same(self, one: Target, other: Target) -> bool:
        return one == other

    def delete(self, target: Target) -> Verdict:
        """Delete in no time."""
        return self._ask(target)[1]

    def _ask(self, target: Target) -> tuple[float, Verdict]:
        now = anyio.current_time()
        image, _ = self._images[target.url.rpartition("/")[2]]
        behavior = self.of_images.get(image.id, self.stores[target.store])
        seconds, verdict = behavior(now)
        self.asked.append(Asked(now, image.id, image.owner, target.store, verdict))
        return seconds, verdict

    def look_for(self, target: Target, _size_bytes: int) -> Presence:
        self.questions += 1
        return self.live[target.store](anyio.current_time())

    async def deleted(self, target: Target) -> Verdict:
        """Delete in as much time as the store says."""
        seconds, verdict = self._ask(target)
        self.under_way[target.store] += 1
        self.most_under_way[target.store] = max(
            self.most_under_way[target.store], self.under_way[target.store]
        )
        await anyio.sleep(seconds)
        self.under_way[target.store] -= 1
        return verdict


async def delete_slowly(deleter: Deleter, world: World, batch: Batch) -> None:
    """Do what a thread does, in as much time as the store says."""
    while (job := batch.take()) is not None:
        location, target = next(job.pending)
        began = anyio.current_time()
        verdict = await world.deleted(target)
        batch.answer(deleter._answer(job, location, verdict, began))
        if verdict != GONE and not verdict.is_missing:
            batch.current = None
            return


@contextmanager
def simulated_threads(seconds: float = REGISTRY_SECONDS) -> Iterator[None]:
    """Let what would block a thread take simulated time."""

    async def run_sync(
        function: Callable[..., T],
        *arguments: Any,
        limiter: anyio.CapacityLimiter | None = None,
        abandon_on_cancel: bool = False,
    ) -> T:
        async with limiter or anyio.CapacityLimiter(1):
            await anyio.sleep(seconds)
            return function(*arguments)

    deletes: set[asyncio.Task[None]] = set()

    async def delete(workers: Workers, lane: Lane, batch: Batch) -> None:
        deleter: Any = workers._delete.__self__  # type: ignore[attr-defined] # a method
        world: Any = deleter._stores
        if all(world.stores[job.next_store] is instant for job in batch.jobs):
            await anyio.sleep(0.001)
            deleter.delete(batch)
        else:
            await delete_slowly(deleter, world, batch)
        workers._done.append((lane, batch))
        workers._tell()

    def start(workers: Workers, lane: Lane, batch: Batch) -> None:
        workers._running += 1
        task = asyncio.get_running_loop().create_task(delete(workers, lane, batch))
        deletes.add(task)
        task.add_done_callback(deletes.discard)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anyio.to_thread, "run_sync", run_sync)
        patch.setattr(Workers, "start", start)
        yield
