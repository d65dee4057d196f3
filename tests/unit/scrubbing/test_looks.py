# SPDX-License-Identifier: Apache-2.0
"""How often the scrubber looks at images and claims them, in simulated time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from unittest.mock import Mock

import anyio
import pytest

from evscrub.config.settings import Settings
from evscrub.domain.decisions import ALIVE, Leave, LocationRow, Policy, Scrub, Wait
from evscrub.domain.verdict import BAD_URL, StoreNotUsableError
from evscrub.registry.claims import Seen, Sight
from evscrub.scrubbing.claimer import UNKNOWN_LANE
from evscrub.scrubbing.scheduler import LOOK_SIZE
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.stores.backends import Target
from tests.unit.simulated_loop import skip
from tests.unit.world import SETTINGS, World, instant

REST = 0.3


class Looks(World):
    """A registry that records looks and claims: when, and how many images."""

    def __init__(self, images: int, settings: Settings = SETTINGS) -> None:
        super().__init__(settings, file=instant)
        self.seen: list[tuple[float, int]] = []
        self.claimed: list[tuple[float, int]] = []
        self.ids = [self.add(f"o{number % 3}", "file") for number in range(images)]

    def look(self, image_ids: Collection[str], policy: Policy) -> Seen:
        self.seen.append((anyio.current_time(), len(image_ids)))
        return super().look(image_ids, policy)

    def claim(self, image_ids: Collection[str], policy: Policy) -> Seen:
        seen = super().claim(image_ids, policy)
        self.claimed.append(self.seen.pop())  # its own look
        return seen

    async def trickle(self, scrubber: Scrubber, lane: str = UNKNOWN_LANE) -> None:
        """Let the images fall due one each 10 ms."""
        for image_id in self.ids:
            scrubber._queue.cancel(image_id)
        for image_id in self.ids:
            scrubber._queue.add(image_id, anyio.current_time(), lane=lane)
            scrubber.wake()
            await anyio.sleep(0.01)


def test_images_that_come_one_by_one_are_gathered() -> None:
    world = Looks(1000)
    world.run(60, world.trickle)
    assert set(world.statuses()) == {"deleted"}
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(world.seen)]
    assert min(gaps) >= REST - 0.001
    assert max(gaps) < REST + 0.05
    assert len(world.seen) == pytest.approx(10 / REST, abs=2)


def test_a_single_image_is_looked_at_at_once() -> None:
    world = Looks(1)
    world.run(60)
    assert world.seen[0][0] < 0.05


@pytest.mark.costly
def test_a_pile_is_looked_at_without_a_rest() -> None:
    world = Looks(5 * LOOK_SIZE)
    world.run(60)
    assert [images for _, images in world.seen] == 5 * [LOOK_SIZE]
    assert world.seen[-1][0] < 5 * 0.1


def test_an_image_due_during_the_rest_needs_no_other_wake_up() -> None:
    world = Looks(2)

    async def later(scrubber: Scrubber) -> None:
        scrubber._queue.cancel(world.ids[1])
        await anyio.sleep(0.1)
        scrubber._queue.add(world.ids[1], anyio.current_time())
        scrubber.wake()

    world.run(60, later)
    assert [images for _, images in world.seen] == [1, 1]
    assert world.seen[1][0] < REST + 0.05


def test_few_images_are_claimed_one_claim_at_a_time() -> None:
    world = Looks(1000)
    world.registry_seconds = 0.2
    world.run(60, lambda scrubber: world.trickle(scrubber, lane="file"))
    assert set(world.statuses()) == {"deleted"}
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(world.claimed)]
    # Until deletes are known to be fast, a claim is as large as the free slots, and the second is.
    assert min(gaps[1:]) >= world.registry_seconds
    assert len(world.claimed) > 10


def test_a_pile_is_claimed_by_two_claims_at_a_time() -> None:
    world = Looks(2000)
    world.registry_seconds = 0.2
    world.run(60)
    assert set(world.statuses()) == {"deleted"}
    starts = [at for at, images in world.claimed if images == world.settings.batch_size]
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert sum(gap < world.registry_seconds for gap in gaps) > 5


def test_images_wait_a_second_for_a_claim_that_takes_long() -> None:
    world = Looks(2)
    world.registry_seconds = 2.0

    async def later(scrubber: Scrubber) -> None:
        for image_id in world.ids:
            scrubber._queue.cancel(image_id)
        for image_id in world.ids:
            scrubber._queue.add(image_id, anyio.current_time(), lane="file")
            scrubber.wake()
            await anyio.sleep(0.1)

    world.run(4, later)
    (first, _), (second, _) = world.claimed
    assert second - first == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("stores", [["file"], ["file", "other"]], ids=" ".join)
def test_a_pile_in_no_usable_store_is_claimed_in_batches(stores: list[str]) -> None:
    """They take no slot, and others may wait behind them."""
    world = Looks(2000)
    world.stores |= dict.fromkeys(stores, instant)
    world.resolve = Mock(side_effect=StoreNotUsableError(BAD_URL, ""))  # type: ignore[method-assign] # none is in a store
    world.run(60)
    sizes = [images for _, images in world.claimed]
    assert sum(sizes) == 2000
    assert len(sizes) < 2000 / world.settings.batch_size + 10


STORES = ["file", "other"] * 20


class Early(Looks):
    """Images that are due at different times, and are looked at before.

    :param stores: of each image.
    """

    def __init__(self, settings: Settings = SETTINGS, stores: Sequence[str] = STORES) -> None:
        super().__init__(0, settings)
        self.stores |= dict.fromkeys(stores, instant)
        self.due = {self.add("o", store): 5.0 + 0.07 * turn for turn, store in enumerate(stores)}
        self.resolved = 0
        self.unusable: set[str] = set()
        self.answer_seconds = 0.0  # of the first look, after it read the clock

    def look(self, image_ids: Collection[str], policy: Policy) -> Seen:
        seen = super().look(image_ids, policy)
        sights = {image_id: self._early(image_id, seen.sights[image_id]) for image_id in image_ids}
        skip(self.answer_seconds)
        self.answer_seconds = 0.0
        return Seen(seen.now, sights)

    def _early(self, image_id: str, sight: Sight) -> Sight:
        left = self.due[image_id] - anyio.current_time()
        if left <= 0 or not isinstance(sight.decision, Scrub):
            return sight
        return Sight(sight.image, Wait(left, sight.decision.locations))

    def resolve(self, row: LocationRow) -> Target:
        self.resolved += 1
        if row.store in self.unusable:
            raise StoreNotUsableError(BAD_URL, "")
        return super().resolve(row)

    def late_seconds(self) -> list[float]:
        """Return how late each image was deleted."""
        return [one.at - self.due[one.image_id] for one in self.asked]


def test_an_image_that_waits_is_claimed_when_due_without_another_look() -> None:
    world = Early()
    world.run(60)
    assert set(world.statuses()) == {"deleted"}
    assert [images for _, images in world.seen] == [len(STORES)]
    assert min(world.late_seconds()) >= 0
    assert max(world.late_seconds()) < 0.05


def test_the_lane_of_an_image_that_waits_is_known_if_there_is_one_store() -> None:
    world = Early(stores=["file"] * 40)
    world.run(60)
    assert set(world.statuses()) == {"deleted"}
    assert [images for _, images in world.seen] == [40]
    assert world.resolved == 40  # for the deletes
    assert max(world.late_seconds()) < 0.05


def test_the_duration_of_the_look_does_not_delay_an_image_that_waits() -> None:
    world = Early()
    world.answer_seconds = 0.5
    world.run(60)
    assert min(world.late_seconds()) >= 0
    assert max(world.late_seconds()) < 0.05


def test_an_image_that_waits_with_a_rate_per_owner_is_looked_at_when_due() -> None:
    world = Early(replace(SETTINGS, owner_rate=100.0))
    world.run(60)
    assert set(world.statuses()) == {"deleted"}
    assert sum(images for _, images in world.seen) == 2 * len(STORES)
    assert min(world.late_seconds()) >= 0
    assert max(world.late_seconds()) < REST + 0.05


def test_an_image_that_waits_in_no_usable_store_is_looked_at_when_due() -> None:
    world = Early()
    world.unusable = {"other"}

    async def later(_: Scrubber) -> None:
        await anyio.sleep(4)
        world.unusable.clear()

    world.run(60, later)
    assert set(world.statuses()) == {"deleted"}
    assert sum(images for _, images in world.seen) == 1.5 * len(STORES)


def test_an_image_that_waits_and_is_restored_is_not_deleted() -> None:
    world = Early()
    restored = world.images[7]

    async def later(_: Scrubber) -> None:
        await anyio.sleep(4)
        world.decisions[restored] = Leave(ALIVE)

    world.run(60, later)
    assert world.status(restored) == "pending_delete"
    assert [images for _, images in world.seen] == [len(STORES)]  # a claim has met it
    assert restored not in [one.image_id for one in world.asked]
    assert len(world.asked) == len(STORES) - 1


def test_an_event_does_not_have_an_image_claimed_before_it_is_due() -> None:
    world = Early()

    async def again(scrubber: Scrubber) -> None:
        await anyio.sleep(1)
        scrubber._queue.add(world.images[0], 0.0)
        scrubber.wake()

    world.run(60, again)
    assert set(world.statuses()) == {"deleted"}
    assert [images for _, images in world.seen] == [len(STORES), 1]
    assert sum(images for _, images in world.claimed) == len(STORES)


def test_a_rate_per_owner_holds_for_images_that_wait_already() -> None:
    world = Early()

    async def limit(scrubber: Scrubber) -> None:
        await anyio.sleep(4)
        scrubber.change(replace(SETTINGS, owner_rate=5.0))

    world.run(60, limit)
    assert set(world.statuses()) == {"deleted"}
    assert world.asked[-1].at - world.asked[0].at >= (len(STORES) - 1) / 5 - 0.5
