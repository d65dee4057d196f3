# SPDX-License-Identifier: Apache-2.0
"""A scrubber that shares its limits with others, in simulated time."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import anyio
import pytest

from evscrub.domain.clock import Moment
from evscrub.domain.verdict import GONE, Verdict
from evscrub.scrubbing.scrubber import Scrubber
from tests.unit.world import SETTINGS, World, fast

RATE = 30.0
LIMITED = replace(SETTINGS, rate=RATE)
THIRD, HALF = Fraction(1, 3), Fraction(1, 2)


def share(scrubber: Scrubber, part: Fraction) -> bool:
    """Give a scrubber a share that does not expire."""
    scrubber._context.share.change(part)
    return scrubber.take_share()


def filled(count: int = 500, **changes: Any) -> World:
    world = World(replace(LIMITED, **changes), a=fast)
    for number in range(count):
        world.add(f"o{number % 3}", "a")
    return world


def asked_between(world: World, start: float, end: float) -> int:
    return sum(start <= asked.at < end for asked in world.asked)


def test_nothing_is_begun_without_a_share() -> None:
    world = filled()

    async def meanwhile(scrubber: Scrubber) -> None:
        share(scrubber, Fraction(0))
        await anyio.sleep(20)
        assert world.asked == []
        assert set(world.statuses()) == {"pending_delete"}
        share(scrubber, THIRD)

    world.run(30, meanwhile)
    assert asked_between(world, 20, 30) == pytest.approx(100, abs=2)


def test_limits_that_are_not_shared_need_no_share() -> None:
    world = filled(rate=0.0)

    async def meanwhile(scrubber: Scrubber) -> None:
        share(scrubber, Fraction(0))

    world.run(60, meanwhile)
    assert world.statuses() == {"deleted": 500}


@pytest.mark.costly
def test_rate_follows_the_share_and_is_never_exceeded() -> None:
    world = filled(2000, burst=6.0)
    changes = [(0.0, HALF), (10.0, THIRD), (20.0, Fraction(1)), (30.0, HALF)]

    async def meanwhile(scrubber: Scrubber) -> None:
        for at, part in changes:
            await anyio.sleep(max(0.0, at - anyio.current_time()))
            share(scrubber, part)

    world.run(40, meanwhile)
    for (start, part), end in zip(changes, [10.0, 20.0, 30.0, 40.0], strict=True):
        at_once = 6 * part if not start else 0  # a bucket starts empty when the share changes
        asked = asked_between(world, start, end)
        assert 10 * RATE * part - 3 <= asked <= 10 * RATE * part + at_once + 1


def test_expired_share_is_not_used_by_those_who_wait_for_their_turn() -> None:
    world = filled(rate=1.0)

    async def meanwhile(scrubber: Scrubber) -> None:
        gate = scrubber._context.share
        clock = scrubber._context.clock
        share(scrubber, Fraction(1))
        gate.renew(clock.moment(), 10.5)
        await anyio.sleep(60)
        gate.renew(clock.moment(), math.inf)
        share(scrubber, Fraction(1))

    world.run(70, meanwhile)
    assert asked_between(world, 0, 10.5) == pytest.approx(11, abs=1)
    assert asked_between(world, 10.5, 60) == 0
    assert asked_between(world, 60, 70) == pytest.approx(9, abs=1)


@pytest.mark.costly
def test_lost_share_releases_what_is_not_started() -> None:
    world = filled(rate=1.0, burst=50.0)

    async def meanwhile(scrubber: Scrubber) -> None:
        share(scrubber, Fraction(1))
        await anyio.sleep(5)
        assert world.statuses()["claimed"] > 0
        share(scrubber, Fraction(0))
        await anyio.sleep(5)
        assert set(world.statuses()) == {"deleted", "pending_delete"}
        share(scrubber, Fraction(1))

    world.run(700, meanwhile)
    assert world.statuses() == {"deleted": 500}


def test_expired_share_begins_nothing_that_was_claimed_before() -> None:
    world = World(
        replace(SETTINGS, concurrency=2, shared_concurrency=True), a=lambda _: (0.05, GONE)
    )
    for number in range(200):
        world.add(f"o{number}", "a")

    async def meanwhile(scrubber: Scrubber) -> None:
        share(scrubber, Fraction(1))
        scrubber._context.share.renew(scrubber._context.clock.moment(), 2.01)

    world.run(20, meanwhile)
    assert len(world.asked) == pytest.approx(80, abs=5)
    assert max(asked.at for asked in world.asked) < 2.01


def test_share_expires_by_the_wall_clock_too() -> None:
    """A virtual machine's boot clock may stop while it is frozen."""
    world = filled()

    async def meanwhile(scrubber: Scrubber) -> None:
        gate = scrubber._context.share
        share(scrubber, Fraction(1))
        now = scrubber._context.clock.moment()
        gate.renew(Moment(now.boot, now.wall - 11), 10)
        assert not gate.is_open
        gate.renew(now, 10)
        assert gate.is_open

    world.run(1, meanwhile)


def test_concurrency_is_shared_if_asked_for() -> None:
    def slow(_now: float) -> tuple[float, Verdict]:
        return 5.0, GONE

    world = World(
        replace(SETTINGS, shared_concurrency=True, store_concurrency={"b": 8}), a=slow, b=slow
    )
    for number in range(200):
        world.add(f"o{number % 9}", "ab"[number % 2])
    in_force: list[bool] = []

    async def meanwhile(scrubber: Scrubber) -> None:
        in_force.append(share(scrubber, Fraction(1)))
        await anyio.sleep(1)
        assert world.under_way.total() == 16
        in_force.append(share(scrubber, Fraction(1, 4)))
        await anyio.sleep(6)
        in_force.append(share(scrubber, Fraction(1, 4)))
        assert world.under_way.total() == 4
        assert world.under_way["b"] <= 2
        share(scrubber, Fraction(1, 100))
        await anyio.sleep(6)
        assert world.under_way.total() == 1

    world.run(14, meanwhile)
    assert in_force == [True, False, True]


def test_concurrency_is_each_agents_own_by_default() -> None:
    assert LIMITED.of_share(THIRD).concurrency == LIMITED.concurrency
    assert replace(LIMITED, shared_concurrency=True).of_share(THIRD).concurrency == 5


def test_settings_of_a_share() -> None:
    whole = replace(SETTINGS, rate=1.0, burst=9.0, owner_rate=0.3, store_rate={"a": 6.0, "b": 0.0})
    part = whole.of_share(THIRD)
    assert (part.rate, part.burst, part.owner_rate) == pytest.approx((1 / 3, 3, 0.1))
    assert part.store_rate == pytest.approx({"a": 2.0, "b": 0.0})
    assert whole.of_share(Fraction(1, 90)).burst == 1
    assert whole.of_share(Fraction(1)) == whole


@pytest.mark.costly
def test_store_rate_and_owner_rate_follow_the_share() -> None:
    settings: list[dict[str, Any]] = [{"store_rate": {"a": RATE}}, {"owner_rate": RATE / 3}]
    for changes in settings:
        world = filled(1000, rate=0.0, **changes)

        async def meanwhile(scrubber: Scrubber) -> None:
            share(scrubber, THIRD)
            await anyio.sleep(10)
            share(scrubber, Fraction(1))

        world.run(20, meanwhile)
        assert asked_between(world, 0, 10) == pytest.approx(100, abs=5)
        assert asked_between(world, 10, 20) == pytest.approx(300, abs=6)
