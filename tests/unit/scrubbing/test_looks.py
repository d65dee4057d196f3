# SPDX-License-Identifier: Apache-2.0
"""How often the scrubber looks at images and claims them, in simulated time."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import anyio
import pytest

from evscrub.domain.decisions import Policy
from evscrub.registry.claims import Seen
from evscrub.scrubbing.claimer import UNKNOWN_LANE
from evscrub.scrubbing.scheduler import LOOK_SIZE
from evscrub.scrubbing.scrubber import Scrubber
from tests.unit.world import World, instant

REST = 0.3


class Looks(World):
    """A registry that records looks and claims: when, and how many images."""

    def __init__(self, images: int) -> None:
        super().__init__(file=instant)
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
