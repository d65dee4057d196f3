# SPDX-License-Identifier: Apache-2.0
"""The last look for shared data before a delete, on a registry and stores in memory."""

from __future__ import annotations

import math
from collections.abc import Collection

import anyio
import pytest
from oslo_db import exception as db_exception

from evscrub.clock import Clock
from evscrub.last_look import LOOK_SECONDS
from evscrub.record import Trouble
from evscrub.rules import LocationRow
from evscrub.scrubber import Scrubber
from evscrub.verdict import GONE, SHARED, Verdict
from tests.unit.test_workers import Bench
from tests.unit.world import World, fast

HANG_SECONDS = 75.0


class SharingWorld(World):
    """A world in which somebody gets the URL of a location at some time."""

    shared_since = 10.0
    looks = 0
    fails_until = 0.0
    looked_at: list[int]

    def among(self, rows: Collection[LocationRow]) -> dict[int, Verdict]:
        self.looks += 1
        self.looked_at = [row.id for row in rows]
        now = anyio.current_time()
        if 1 < now < self.fails_until:
            self.fails_until = 0.0  # once: the claim of a retry is to succeed
            raise db_exception.DBError(None)
        since = self.shared_since
        return {row.id: SHARED for row in rows if row.store == "wanted" and now >= since}


def hangs(_now: float) -> tuple[float, Verdict]:
    return HANG_SECONDS, GONE


def test_what_got_shared_behind_a_location_that_hung_stays() -> None:
    world = SharingWorld(slow=hangs, wanted=fast)
    image = world.add("owner", "slow", "wanted")
    world.run(until=200)
    assert [asked.store for asked in world.asked] == ["slow"]
    assert world.status(image) == "deleted"
    assert world.left(image) == set()


def test_what_nobody_shares_goes_behind_a_location_that_hung() -> None:
    world = SharingWorld(slow=hangs, wanted=fast)
    world.shared_since = 1000
    world.add("owner", "slow", "wanted")
    world.run(until=200)
    assert [asked.store for asked in world.asked] == ["slow", "wanted"]
    assert world.looks == 2


def test_a_fast_store_needs_no_further_looks() -> None:
    world = SharingWorld(fast=fast)
    for _ in range(500):
        world.add("owner", "fast")
    world.run(until=60)
    assert len(world.asked) == 500
    assert world.looks <= 500 / 10


def test_nothing_is_deleted_without_a_last_look() -> None:
    world = SharingWorld(slow=lambda _: (10.0, GONE), wanted=fast)
    world.fails_until, world.shared_since = 12, math.inf
    image = world.add("owner", "slow", "wanted")
    troubles: list[Trouble] = []

    async def watch(scrubber: Scrubber) -> None:
        await anyio.sleep(12)
        troubles.extend(scrubber.record.troubles.values())

    world.run(until=6000, meanwhile=watch)
    assert [trouble.verdict.reason for trouble in troubles] == ["no_last_look"]
    assert [asked.store for asked in world.asked] == ["slow", "wanted"]
    assert world.status(image) == "deleted"
    assert world.asked[1].at > 12


def test_a_look_that_takes_too_long_is_of_no_use() -> None:
    bench = Bench(("a",))
    look = bench.scrubber.workers._last_look
    times = [0.0]
    look._clock = Clock(lambda: times[0], lambda: times[0])

    def among(_rows: object) -> dict[int, Verdict]:
        times[0] += LOOK_SECONDS + 0.1
        return {}

    look._among = among
    times[0] = bench.now + LOOK_SECONDS + 0.1
    assert bench.work() == bench.works
    assert not bench.deleted
    assert bench.works[0].trouble is not None


def test_those_that_wait_for_a_look_share_the_next() -> None:
    bench = Bench(*[("a",)] * 9)
    look = bench.scrubber.workers._last_look
    asked: list[int] = []

    async def call(_function: object, rows: list[LocationRow]) -> dict[int, Verdict]:
        asked.append(len(rows))
        await anyio.sleep(0.01)
        return {rows[0].id: SHARED}

    look._calls.call = call  # type: ignore[assignment, method-assign] # takes time
    bench.now += LOOK_SECONDS + 0.1
    spared: list[dict[int, Verdict] | None] = []

    async def renew_all() -> None:
        async def renew(index: int) -> None:
            spared.append(await look.renew(bench.works[index]))

        async with anyio.create_task_group() as tasks:
            for index in range(len(bench.works)):
                tasks.start_soon(renew, index)

    anyio.run(renew_all)
    assert asked == [9]
    assert sorted(len(ids or ()) for ids in spared) == [0] * 8 + [1]


@pytest.mark.parametrize(("age", "deleted"), [(LOOK_SECONDS - 0.2, 2), (LOOK_SECONDS - 0.1, 1)])
def test_a_thread_deletes_nothing_after_an_old_look(age: float, deleted: int) -> None:
    bench = Bench(("a",), ("a",))
    bench.now += age

    def meanwhile(_number: int) -> Verdict:
        bench.now += 0.15
        return GONE

    bench.meanwhile = meanwhile
    answers = bench.delete()
    assert [work for work, _ in answers] == bench.works  # it is looked at again, not forgotten
    assert sum(len(verdicts) for _, verdicts in answers) == deleted
