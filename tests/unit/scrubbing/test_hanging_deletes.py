# SPDX-License-Identifier: Apache-2.0
"""Deletes that hang, beside breakers that open, in simulated time."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import anyio
import pytest

from evscrub.domain.verdict import GONE, Outcome, Verdict
from evscrub.flow_control.adaptive_limit import Pace
from evscrub.flow_control.health import Health
from evscrub.scrubbing.batch import OVERDUE_SECONDS, Batch
from evscrub.scrubbing.lane import Lane
from evscrub.scrubbing.scrubber import Scrubber
from tests.unit.world import DOWN, SETTINGS, THROTTLED, World, down, fast, new_job

HANGS = (5000.0, GONE)
TIMED_OUT = Verdict(Outcome.TRANSIENT, "timeout")
#: How long a store that works again may wait: for a look at it, after a delete became overdue.
LONGEST = 2 * OVERDUE_SECONDS


def works(_: float) -> tuple[float, Verdict]:
    return 0.2, GONE


@pytest.mark.costly
@pytest.mark.parametrize("trouble", [(0.05, DOWN), (0.05, THROTTLED), (5.0, TIMED_OUT)])
def test_a_store_that_works_again_is_found_out(trouble: tuple[float, Verdict]) -> None:
    world = World(a=lambda now: trouble if 2 <= now < 40 else works(now))
    for number in range(3):
        world.of_images[world.add(f"x{number}", "a")] = lambda _: HANGS
    for number in range(600):
        world.add(f"o{number % 5}", "a")
    world.run(600, drain=1)
    assert world.statuses() == {"deleted": 600, "claimed": 3}
    assert max(one.at for one in world.asked) < 40 + LONGEST


@pytest.mark.parametrize("hanging", [1, 3])
def test_a_store_that_was_slowed_down_recovers(hanging: int) -> None:
    """Without a breaker that opens: one answer in three is good."""
    answers = cycle([(0.05, THROTTLED), (0.05, THROTTLED), (0.05, GONE)])
    world = World(a=lambda now: next(answers) if 2 <= now < 40 else works(now))
    for number in range(hanging):
        world.of_images[world.add(f"x{number}", "a")] = lambda _: HANGS
    for number in range(300):
        world.add(f"o{number % 5}", "a")
    world.run(600, drain=1)
    assert world.statuses() == {"deleted": 300, "claimed": hanging}
    assert max(one.at for one in world.asked) < 40 + LONGEST


def test_so_are_images_of_the_owner_of_the_one_that_hangs() -> None:
    world = World(a=fast)
    world.of_images[world.add("x", "a")] = lambda _: HANGS
    for _ in range(30):
        image_id = world.add("x", "a")
        world.of_images[image_id] = lambda now: down(now) if now < 20 else fast(now)
    for number in range(300):
        world.add(f"o{number % 5}", "a")
    world.run(600, drain=1)
    assert world.statuses() == {"deleted": 330, "claimed": 1}
    assert max(one.at for one in world.asked) < 20 + LONGEST


def test_a_probe_that_hangs_is_followed_by_another_after_a_while() -> None:
    """Not by many, for each may hold a slot for ever."""
    world = World(a=lambda now: works(now) if now < 2 else down(now) if now < 20 else HANGS)
    for number in range(600):
        world.add(f"o{number % 5}", "a")
    world.run(20 + 10 * OVERDUE_SECONDS, drain=1)
    assert 5 <= world.statuses()["claimed"] <= 11


def test_no_image_is_claimed_for_a_probe_that_finds_no_slot() -> None:
    """Other agents may have one."""
    settings = replace(SETTINGS, store_concurrency={"a": 4})
    world = World(
        settings, a=lambda now: works(now) if now < 2 else down(now) if now < 20 else HANGS
    )
    for number in range(600):
        world.add(f"o{number % 5}", "a")

    async def watch(_: Scrubber) -> None:
        await anyio.sleep(20 + 10 * OVERDUE_SECONDS)
        assert world.statuses()["claimed"] == world.under_way["a"] == 4

    world.run(30 + 10 * OVERDUE_SECONDS, watch, drain=1)


@pytest.mark.costly
def test_a_slow_probe_is_waited_for() -> None:
    """It is the only one until its answer, whatever other stores do."""
    world = World(
        a=lambda now: works(now) if now < 2 else down(now) if now < 20 else (50.0, GONE),
        b=lambda _: (1.0, GONE),
    )
    for number in range(1200):
        world.add(f"o{number % 5}", "ab"[number % 2])
    world.run(60, drain=3)
    assert world.statuses()["claimed"] == 1
    assert max(one.at for one in world.asked if one.store == "b") > 30


def test_a_batch_is_overdue_only_once_it_deletes() -> None:
    """Before, it waits for the rate limits or the registry."""
    batch = Batch([new_job()], "o", 100.0)
    assert not batch.is_overdue(1000.0)
    batch.take()
    assert not batch.is_overdue(100.0 + OVERDUE_SECONDS - 1)
    assert batch.is_overdue(100.0 + OVERDUE_SECONDS)


def test_a_batch_that_ends_is_not_overdue_any_more() -> None:
    lane = Lane("a", Health(Pace(1), lambda low, _: low), not_found_limit=20)
    lane.push(new_job())
    batch = lane.begin(0.0, 1)
    assert batch is not None
    batch.take()
    lane.unblock(OVERDUE_SECONDS)
    assert (lane.running, lane.probing) == (1, 0)
    lane.end(batch)
    assert (lane.running, lane.probing) == (0, 0)
