# SPDX-License-Identifier: Apache-2.0
"""The lanes in a whole scrubber, in simulated time, with scripted stores."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import chain, cycle, pairwise, repeat
from typing import Any

import anyio
import anyio.to_thread
import pytest

from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.domain.decisions import LocationRow, Policy
from evscrub.domain.proof import Presence
from evscrub.domain.verdict import GONE, Outcome, Verdict
from evscrub.flow_control.circuit_breaker import State
from evscrub.queueing.delay_queue import DelayQueue
from evscrub.registry.claims import Seen, Settlement
from evscrub.scrubbing.batch import Batch
from evscrub.scrubbing.context import Context
from evscrub.scrubbing.deleter import Deleter
from evscrub.scrubbing.job import Job
from evscrub.scrubbing.lane import Lane
from evscrub.scrubbing.lanes import Lanes
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.scrubbing.witnesses import Witness
from evscrub.scrubbing.workers import Workers
from evscrub.stores.backends import Target
from evscrub.telemetry.statistics import Record
from tests.unit.simulated_loop import run
from tests.unit.world import (
    DOWN,
    NOT_FOUND,
    REGISTRY_SECONDS,
    SETTINGS,
    THROTTLED,
    Asked,
    Behavior,
    Throttle,
    World,
    down,
    fast,
    instant,
    missing,
    new_job,
)


def share_refused(asked: Sequence[Asked]) -> float:
    return sum(one.verdict is THROTTLED for one in asked) / max(1, len(asked))


class CountingWorld(World):
    """It counts the images that are claimed."""

    claims = 0

    def claim(self, image_ids: Collection[str], policy: Policy) -> Seen:
        seen = super().claim(image_ids, policy)
        self.claims += len(seen.claims)
        return seen


def finished(world: World, store: str) -> list[float]:
    """Return the times of a store's successful deletes."""
    return [one.at for one in world.asked if one.store == store and one.verdict is GONE]


def test_everything_is_deleted_once() -> None:
    world = World(a=fast, b=fast)
    for number in range(500):
        world.add(f"o{number % 7}", *["a", "b"][: 1 + number % 2])
    took = world.run(60)
    assert world.statuses() == {"deleted": 500}
    assert len(world.asked) == len({(one.image_id, one.store) for one in world.asked}) == 750
    assert took < 5
    assert sum(world.most_under_way.values()) <= 32


class TestStoreThatTakesNoTime:
    @pytest.mark.costly
    def test_everything_is_deleted_once_by_few_threads(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs: list[int] = []
        delete_all = Deleter._delete_all

        def counted(deleter: Deleter, batch: Batch) -> None:
            delete_all(deleter, batch)
            runs.append(len(batch.answers))

        monkeypatch.setattr(Deleter, "_delete_all", counted)
        world = World(a=instant, b=fast)
        for number in range(2000):
            world.add(f"o{number % 7}", *["a", "b"][: 1 + (number % 20 == 0)])
        world.run(60)
        assert world.statuses() == {"deleted": 2000}
        assert len(world.asked) == len({(one.image_id, one.store) for one in world.asked}) == 2100
        assert sum(runs) == 2000
        assert len(runs) < 600

    @pytest.mark.parametrize("rates", [{"rate": 50.0}, {"store_rate": {"a": 50.0}}])
    def test_a_rate_is_kept(self, rates: dict[str, Any]) -> None:
        world = World(replace(SETTINGS, **rates), a=instant)
        for _ in range(300):
            world.add("o", "a")
        assert world.run(60) == pytest.approx(6, abs=0.3)

    @pytest.mark.costly
    def test_jobs_not_started_are_released_at_the_end(self) -> None:
        world = World(a=instant)
        for _ in range(20_000):
            world.add("o", "a")
        world.run(0.4)
        assert world.statuses()["pending_delete"] > 5000
        assert all(not world.left(i) or world.status(i) == "pending_delete" for i in world.images)


class TestManyDeletes:
    """More of them end in a second than the loop may turn."""

    @pytest.mark.costly
    def test_each_slot_is_used_again_at_once(self) -> None:
        uniform = random.Random(0).uniform
        world = World(replace(SETTINGS, concurrency=4), a=lambda _: (uniform(0.006, 0.01), GONE))
        for number in range(2000):
            world.add(f"o{number % 7}", "a")
        assert world.run(60) == pytest.approx(2000 * 0.008 / 4, abs=0.5)

    def test_threads_end_with_the_scrubber(self, monkeypatch: pytest.MonkeyPatch) -> None:
        closed: list[Workers] = []

        def close(workers: Workers) -> None:
            closed.append(workers)

        monkeypatch.setattr(Workers, "close", close)
        World(a=fast).run(1)
        assert len(closed) == 1

        async def fail(_: object) -> None:
            raise LookupError("no such thing")

        monkeypatch.setattr(Scrubber, "_pump", fail)
        with pytest.raises(ExceptionGroup):
            World(a=fast).run(1)
        assert len(closed) == 2

    @pytest.mark.parametrize("apply", ["change", "take_share"])
    def test_batches_that_wait_keep_a_lowered_concurrency(self, apply: str) -> None:
        settings = replace(SETTINGS, concurrency=30, rate=100.0)
        seconds = [0.2]
        world = World(settings, a=lambda _: (seconds[0], GONE))
        for number in range(600):
            world.add(f"o{number % 40}", "a")
        begun: list[int] = []

        async def lower(scrubber: Scrubber) -> None:
            await anyio.sleep(1)
            seconds[0] = 5.0
            await anyio.sleep(0.05)
            lowered = replace(settings, concurrency=2)
            if apply == "change":
                scrubber.change(lowered)
            else:
                scrubber._configured = lowered
                scrubber.take_share()
            before = len(world.asked)
            await anyio.sleep(2)
            begun.append(len(world.asked) - before)

        world.run(3.2, lower, idle=True)
        assert begun == [0]

    @pytest.mark.costly
    def test_loop_turns_less_often_than_deletes_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        turns: list[float] = []
        monkeypatch.setattr(Lanes, "unblock", lambda _lanes, now: turns.append(now))
        uniform = random.Random(0).uniform
        world = World(replace(SETTINGS, concurrency=64), a=lambda _: (uniform(0.04, 0.06), GONE))
        for number in range(3000):
            world.add(f"o{number % 7}", "a")
        took = world.run(60)
        assert took == pytest.approx(3000 * 0.05 / 64, abs=0.7)
        assert len(turns) <= took / 0.005 + 2
        assert all(later - turn >= 0.0049 for turn, later in pairwise(turns))


class TestSettling:
    """Jobs are settled in batches."""

    @pytest.fixture
    def settled(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Sizes of the settlements."""
        sizes: list[int] = []
        settle = World.settle

        def counted(
            world: World, settlements: Sequence[Settlement], claim_timeout: timedelta
        ) -> Collection[str]:
            sizes.append(len(settlements))
            return settle(world, settlements, claim_timeout)

        monkeypatch.setattr(World, "settle", counted)
        return sizes

    def test_single_jobs_are_gathered(self, settled: list[int]) -> None:
        world = World(a=fast)
        for _ in range(1000):
            world.add("o", "a")
        world.run(60)
        assert sum(settled) == 1000
        assert len(settled) < 40

    @pytest.mark.costly
    def test_full_batch_is_settled_at_once(self, settled: list[int]) -> None:
        world = World(a=instant)
        for _ in range(5000):
            world.add("o", "a")
        assert world.run(60) < 1.2
        assert sum(settled) == 5000

    def test_durations_are_recorded(self) -> None:
        world = World(a=instant)
        for _ in range(10):
            world.add("o", "a")
        records: list[Record] = []

        async def watch(scrubber: Scrubber) -> None:
            records.append(scrubber._record)

        world.run(60, watch)
        assert sum(records[0].queued.counts) == sum(records[0].worked.counts) == 10


class TestTurns:
    """A batch acquires a token for each of its jobs."""

    def test_batch_of_fast_deletes_follows_the_rate(self) -> None:
        assert self.turns(0.001, rate=200.0) == pytest.approx((10, 10, 0.05), abs=0.01)

    def test_batch_is_at_most_the_burst(self) -> None:
        assert self.turns(0.001, rate=1000.0, burst=8.0) == pytest.approx((8, 8, 0.008), abs=0.01)

    @pytest.mark.parametrize("rates", [(10.0, 5.0), (5.0, 10.0)])
    def test_batch_is_one_under_a_low_rate(self, rates: tuple[float, float]) -> None:
        assert self.turns(0.001, *rates, burst=1.0) == pytest.approx((1, 1, 0.2), abs=0.01)

    def test_batch_is_one_if_deletes_are_slow(self) -> None:
        assert self.turns(0.05, rate=200.0) == pytest.approx((1, 1, 0), abs=0.01)

    def turns(
        self, delete_seconds: float, rate: float, store_rate: float = 0.0, burst: float = 10.0
    ) -> tuple[float, float, float]:
        """Take two batches; returns their sizes and how long the second waited."""

        async def main() -> tuple[float, float, float]:
            settings = replace(SETTINGS, rate=rate, burst=burst, store_rate={"a": store_rate})
            clock = Clock(anyio.current_time, anyio.current_time)
            calls: Any = None
            lanes = Lanes(["a"], DelayQueue(1), Context(settings, DatabaseClock(clock), calls))
            lane = lanes.of("a")
            lane.took(delete_seconds)
            for number in range(200):
                lane.push(new_job(f"i{number}"))
            sizes, began = [], 0.0
            for _ in range(2):
                began = anyio.current_time()
                begun = lanes.next_batch(began)
                assert begun is not None
                sizes.append(len(begun[1]))
                await lanes.turns(*begun)
                lane.end(begun[1])
            return sizes[0], sizes[1], anyio.current_time() - began

        return run(main)


@pytest.mark.costly
def test_fast_lane_gets_turns_while_a_slow_one_wants_them_all() -> None:
    settings = replace(SETTINGS, rate=200.0, burst=20.0, concurrency=64)
    world = World(settings, a=instant, b=lambda _: (0.1, GONE))
    for number in range(6000):
        world.add(f"o{number % 9}", "a" if number < 3000 else "b")
    world.run(15)
    counts = Counter(one.store for one in world.asked if one.at > 5)
    assert sum(counts.values()) == pytest.approx(200 * 10, rel=0.05)
    assert counts["a"] > 250
    assert counts["b"] > 250


def test_raised_concurrency_takes_effect() -> None:
    world = World(replace(SETTINGS, concurrency=1), a=lambda _: (1.0, GONE))
    for _ in range(170):
        world.add("o", "a")

    async def change(scrubber: Scrubber) -> None:
        await anyio.sleep(10)
        scrubber.change(SETTINGS)

    assert world.run(100, change) == pytest.approx(20.5, abs=1)


def test_defect_of_a_worker_ends_only_that_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its jobs are retried."""
    select = Deleter.select
    defects = iter([LookupError("no such thing")])

    def fail(deleter: Deleter, lane: Lane, batch: Batch) -> tuple[list[Job], list[Job]]:
        for defect in defects:
            raise defect
        return select(deleter, lane, batch)

    monkeypatch.setattr(Deleter, "select", fail)
    world = World(a=fast)
    for _ in range(100):
        world.add("o", "a")
    world.run(10)
    assert len(finished(world, "a")) == 100
    assert "A worker of store a failed" in caplog.text


class TestStoreThatIsDown:
    def test_is_probed_a_few_times_a_minute(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "evscrub")
        world = World(a=down)
        for number in range(1000):
            world.add(f"o{number % 50}", "a")
        world.run(600)
        asked = {one.image_id for one in world.asked}
        assert world.statuses() == {
            "given back": len(asked),
            "pending_delete": 1000 - len(asked),
        }
        times = [one.at for one in world.asked]
        assert len([at for at in times if at < 60]) <= 45
        for minute in range(1, 10):
            assert len([at for at in times if 60 * minute <= at < 60 * (minute + 1)]) <= 4
        assert len([at for at in times if at >= 60]) >= 6
        assert len(caplog.records) < 20

    def test_jobs_are_released_meanwhile(self) -> None:
        world = World(a=down)
        for number in range(300):
            world.add(f"o{number}", "a")
        claimed: list[int] = []

        async def watch(_: Scrubber) -> None:
            for _second in range(290):
                await anyio.sleep(1)
                claimed.append(world.statuses()["claimed"])

        world.run(300, watch)
        # All but a probe.
        assert max(claimed[5:]) <= 1

    def test_locations_forwarded_from_other_lanes_are_released(self) -> None:
        world = World(a=fast, b=down)
        for number in range(100):
            world.add(f"o{number % 5}", "a", "b")
        claimed: list[int] = []

        async def watch(_: Scrubber) -> None:
            for _second in range(290):
                await anyio.sleep(1)
                claimed.append(world.statuses()["claimed"])

        world.run(300, watch)
        assert len(finished(world, "a")) == 100  # what is gone is not asked for again
        assert max(claimed[20:]) <= 1

    def test_resumes_when_it_is_back(self) -> None:
        world = World(a=lambda now: fast(now) if now > 300 else down(now))
        for number in range(1000):
            world.add(f"o{number % 50}", "a")
        took = world.run(1500)
        assert world.statuses() == {"deleted": 1000}
        assert took < 300 + 75 + 300

    @pytest.mark.costly
    def test_failed_images_are_not_settled_as_gone(self) -> None:
        """For instance if it returns without its mount, or with another bucket."""
        world = World(a=lambda now: (0.01, NOT_FOUND if now > 7200 else DOWN))
        for number in range(60):
            world.add(f"o{number}", "a")
        world.run(9000)
        assert len({one.image_id for one in world.asked}) == 60
        assert world.statuses() == {"given back": 60}

    def test_failed_images_are_as_late_as_the_others(self) -> None:
        world = World(a=lambda now: fast(now) if now > 300 else down(now))
        for number in range(20):
            world.add(f"o{number}", "a")
        late: list[float] = []

        async def watch(scrubber: Scrubber) -> None:
            await anyio.sleep(1400)
            late.extend(scrubber._record.late_seconds)

        world.run(1500, watch)
        assert len(late) == 20
        assert min(late) > 300

    def test_other_stores_go_on(self) -> None:
        world = World(a=down, b=fast)
        for number in range(400):
            world.add(f"o{number % 5}", "a" if number % 2 else "b")
        world.run(60)
        assert len(finished(world, "b")) == 200
        assert max(finished(world, "b")) < 5


class TestSlowStore:
    def test_does_not_delay_another(self) -> None:
        """One store holds all slots before the first image of the other arrives."""
        world = World(a=lambda _: (5.0, GONE), b=fast)
        for _ in range(300):
            world.add("o", "a")
        for _ in range(100):
            world.add("o", "b")
        world.run(120)
        times = finished(world, "b")
        assert len(times) == 100
        assert max(times) < 20

    def test_hanging_store_does_not_delay_another(self) -> None:
        world = World(a=lambda _: (100_000.0, DOWN), b=fast)
        for _ in range(100):
            world.add("o", "a")
        for _ in range(100):
            world.add("o", "b")
        world.run(60, drain=1)
        assert len(finished(world, "b")) == 100

    @pytest.mark.costly
    def test_equal_stores_take_turns(self) -> None:
        world = World(a=fast, b=fast)
        for number in range(4000):
            world.add("o", "a" if number < 2000 else "b")
        world.run(120)
        half = [one.store for one in world.asked[:2000]]
        assert 600 < half.count("b") < 1400


@pytest.mark.parametrize("owners", ["a", "ab"])
@pytest.mark.parametrize("concurrency", [4, 16])
def test_a_slow_store_that_lacks_everything_is_found_out(owners: str, concurrency: int) -> None:
    """It answers for a few images twice before it answers for the others."""
    world = World(replace(SETTINGS, concurrency=concurrency), a=lambda _now: (12.0, NOT_FOUND))
    for number in range(60):
        image_id = world.add(owners[number % len(owners)], "a")
        if number < 6:
            world.of_images[image_id] = missing
    world.run(300)
    assert world.statuses() == {"pending_delete": 60}


@pytest.mark.parametrize("owners", ["a", "ab"])
@pytest.mark.parametrize("another", [False, True])
def test_answers_during_a_repair_settle_nothing(owners: str, another: bool) -> None:
    """The deletes that are running when the store is paused find some data restored.

    The image of another owner ends a pause that was due to a single one.
    """

    def under_repair(now: float) -> tuple[float, Verdict]:
        return (0.3, NOT_FOUND) if now < 2.9 else next(repaired)

    # The last one was asked for before its data was restored, and answers after the first one.
    repaired = chain([(1.0, GONE), (1.5, NOT_FOUND)], repeat((0.6, NOT_FOUND)))
    world = World(replace(SETTINGS, not_found_limit=5), a=under_repair)
    for number in range(12):
        world.add(owners[number % len(owners)], "a")

    async def add_another(scrubber: Scrubber) -> None:
        await anyio.sleep(10)
        if another:
            scrubber._queue.add(world.add("c", "a"), anyio.current_time(), owner="c")

    world.run(14, add_another, idle=True)
    found = {one.image_id for one in world.asked if one.verdict is GONE}
    assert len(found) == 1
    assert {image_id for image_id in world.images if world.status(image_id) == "deleted"} == found


def test_a_witness_restored_during_a_repair_proves_nothing() -> None:
    """Data that was asked for before may be restored after the witness."""
    answers = chain([(0.3, NOT_FOUND)], repeat((20.0, NOT_FOUND)))
    world = World(a=lambda _now: next(answers))
    world.live["a"] = lambda now: Presence.ABSENT if now < 10 else Presence.THERE
    for _ in range(5):
        world.add("o", "a")
    world.run(60)
    assert world.questions >= 1
    assert world.statuses() == {"pending_delete": 5}


class TestLimits:
    def test_concurrency_of_each_store(self) -> None:
        settings = replace(SETTINGS, store_concurrency={"a": 2, "c": 100})
        world = World(settings, a=fast, b=fast, c=fast)
        for number in range(600):
            world.add(f"o{number % 3}", "abc"[number % 3])
        world.run(60)
        assert world.statuses() == {"deleted": 600}
        assert world.most_under_way["a"] == 2
        assert world.most_under_way["b"] > 2
        assert max(world.most_under_way.values()) <= 16

    @pytest.mark.costly
    @pytest.mark.parametrize(("rate", "burst"), [(5.0, 1.0), (0.5, 1.0), (20.0, 10.0)])
    def test_rate_of_a_store(self, rate: float, burst: float) -> None:
        settings = replace(SETTINGS, store_rate={"a": rate}, burst=burst)
        world = World(settings, a=fast, b=fast)
        for number in range(400):
            world.add(f"o{number % 3}", "a" if number < 200 else "b")
        seconds = 150 / rate
        world.run(seconds)
        check_windows(world, "a", burst, rate)
        times = finished(world, "a")
        steady = [at for at in times if at > seconds / 3]
        assert (len(steady) - 1) / (steady[-1] - steady[0]) == pytest.approx(rate, rel=0.02)
        assert max(finished(world, "b")) < 10

    def test_rate_of_a_store_that_takes_seconds(self) -> None:
        settings = replace(SETTINGS, store_rate={"a": 2.5})
        world = World(settings, a=lambda _: (4.0, GONE))
        for _ in range(300):
            world.add("o", "a")
        world.run(80)
        steady = [at for at in finished(world, "a") if at > 20]
        assert (len(steady) - 1) / (steady[-1] - steady[0]) == pytest.approx(2.5, rel=0.02)

    @pytest.mark.costly
    @pytest.mark.parametrize("rate", [3.0, 20.0, 100.0])
    def test_rate_beside_a_slow_registry(self, rate: float) -> None:
        world = World(replace(SETTINGS, rate=rate, concurrency=128), a=fast)
        world.registry_seconds = 0.6
        for _ in range(round(60 * rate)):
            world.add("o", "a")
        world.run(40)
        steady = [at for at in finished(world, "a") if at > 20]
        assert (len(steady) - 1) / (steady[-1] - steady[0]) == pytest.approx(rate, rel=0.05)

    @pytest.mark.costly
    def test_a_change_takes_effect_within_a_second(self) -> None:
        world = World(replace(SETTINGS, store_rate={"a": 10.0}), a=fast)
        for _ in range(2000):
            world.add("o", "a")

        async def change(scrubber: Scrubber) -> None:
            for seconds, rate in ((30, 40.0), (30, 4.0)):
                await anyio.sleep(seconds)
                scrubber.change(replace(world.settings, store_rate={"a": rate}))

        world.run(90, change)
        times = finished(world, "a")
        for start, end, rate in ((0, 30, 10), (31, 60, 40), (61, 90, 4)):
            steady = [at for at in times if start <= at < end]
            assert (len(steady) - 1) / (steady[-1] - steady[0]) == pytest.approx(rate, rel=0.02)

    @pytest.mark.costly
    def test_the_rate_is_kept_while_the_pace_climbs(self) -> None:
        """For any burst and any number of changes of the pace."""
        settings = replace(SETTINGS, store_rate={"a": 20.0}, burst=10.0)
        trouble = iter([10.0, 25.0, 40.0, 1e9])
        following = next(trouble)

        def at_times(now: float) -> tuple[float, Verdict]:
            nonlocal following
            if now < following:
                return fast(now)
            following = next(trouble)
            return 0.01, THROTTLED

        world = World(settings, a=at_times)
        for _ in range(1500):
            world.add("o", "a")
        world.run(100)
        check_windows(world, "a", 10.0, 20.0)

    @pytest.mark.costly
    def test_throttled_store_gets_no_more_than_its_pace(self) -> None:
        """A new burst at each change of the pace would undo the cut."""
        world = World(replace(SETTINGS, burst=50.0), a=Throttle(20.0))
        for number in range(1500):
            world.add(f"o{number % 5}", "a")
        world.run(300)
        later = [one for one in world.asked if one.at > 10]
        assert share_refused(later) < 0.05


def check_windows(world: World, store: str, burst: float, rate: float) -> None:
    """Check that no window has more requests than the burst and the rate."""
    times = [one.at for one in world.asked if one.store == store]
    for first in range(0, len(times), 3):
        for last in range(first, len(times), 7):
            window = times[last] - times[first] + 0.001
            window += REGISTRY_SECONDS  # a last look may be taken between a turn and its request
            assert last - first + 1 <= burst + rate * window + 1e-6, (times[first], times[last])


def are_spaced(times: Sequence[float], seconds: float) -> bool:
    """Return whether images are so far apart; the rate of an owner lets one go a little early."""
    return all(times[n + 4] - times[n] > 4 * seconds - 0.6 for n in range(len(times) - 4))


@pytest.mark.costly
class TestFlood:
    def test_of_one_owner_on_a_store_that_throttles(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "evscrub")
        world = World(a=Throttle(25.0))
        for _ in range(2500):
            world.add("flood", "a")
        for number in range(50):
            world.add(f"other{number}", "a")
        took = world.run(1000)
        assert world.statuses() == {"deleted": 2550}
        gone = [one.owner for one in world.asked if one.verdict is GONE]
        assert max(place for place, owner in enumerate(gone) if owner != "flood") < 400
        assert share_refused([one for one in world.asked if one.at > 5]) < 0.05
        assert took < 1.6 * 2550 / 25
        assert len(caplog.records) < 120

    def test_image_of_another_owner_waits_for_one_turn(self) -> None:
        world = World(replace(SETTINGS, store_rate={"a": 10.0}), a=fast)
        for _ in range(500):
            world.add("flood", "a")
        late = world.add("other", "a")
        world.run(30)
        (at,) = [one.at for one in world.asked if one.image_id == late]
        assert at < 2.5

    def test_under_an_owner_rate(self) -> None:
        world = World(replace(SETTINGS, owner_rate=2.0), a=fast)
        for _ in range(100):
            world.add("flood", "a")
        for number in range(50):
            world.add(f"other{number}", "a")
        took = world.run(120)
        assert world.statuses() == {"deleted": 150}
        assert took == pytest.approx(50, abs=2)
        others = [one.at for one in world.asked if one.owner != "flood"]
        assert max(others) < 2
        assert are_spaced([one.at for one in world.asked if one.owner == "flood"], 0.5)

    @pytest.mark.parametrize(
        "held_up",
        [lambda now: down(now) if now < 60 else fast(now), lambda now: (max(0.02, 60 - now), GONE)],
        ids=["down", "slow"],
    )
    def test_turns_that_passed_are_not_made_up_for(self, held_up: Behavior) -> None:
        """Neither after an outage nor once the slots are free again."""
        world = World(replace(SETTINGS, owner_rate=2.0), a=held_up)
        for number in range(220):
            world.add("flood" if number < 200 else f"other{number}", "a")
        assert world.run(400) < 60 + 110
        assert world.statuses() == {"deleted": 220}
        times = [one.at for one in world.asked if one.owner == "flood" and one.at >= 61]
        assert len(times) > 100
        assert are_spaced(times, 0.5)

    def test_second_tries_have_their_turns_too(self) -> None:
        """All of the first ones fail, and their pauses end in any order, some close together."""
        world = World(replace(SETTINGS, owner_rate=0.05), a=fast)
        failed: set[str] = set()

        def fail_once(image_id: str) -> Behavior:
            def answer(_: float) -> tuple[float, Verdict]:
                if image_id in failed:
                    return 0.02, GONE
                failed.add(image_id)
                return 0.02, Verdict(Outcome.IN_USE, "in_use")

            return answer

        for _ in range(50):
            image_id = world.add("o", "a")
            world.of_images[image_id] = fail_once(image_id)
        world.run(3 * SETTINGS.delays.in_use)
        assert world.statuses() == {"deleted": 50}
        times = [one.at for one in world.asked]
        assert len(times) == 100
        assert are_spaced(times, 20)


@pytest.mark.parametrize("stores", [1, 2])
def test_forged_events_do_not_use_up_an_owners_turns(stores: int) -> None:
    world = World(
        replace(SETTINGS, owner_rate=1.0), **dict(list({"a": fast, "b": fast}.items())[:stores])
    )
    mine = world.add("victim", "a")
    others = [world.add(f"o{number}", "a") for number in range(20)]

    async def forge(scrubber: Scrubber) -> None:
        for number in range(600):  # images that do not exist, of an owner that does
            scrubber._queue.add(f"forged {number}", 0.0, owner="victim")
        for image_id in others:  # real images of others, sent as if they were this owner's
            scrubber._queue.cancel(image_id)
            scrubber._queue.add(image_id, 0.0, owner="victim")

    world.run(100, forge)
    assert world.statuses() == {"deleted": 21}
    assert max(one.at for one in world.asked) < 2
    assert [one.owner for one in world.asked if one.image_id == mine] == ["victim"]


def test_an_event_without_an_owner_takes_its_owners_turns() -> None:
    world = World(replace(SETTINGS, owner_rate=2.0), a=fast)
    for _ in range(20):
        world.add("flood", "a")

    async def forge(scrubber: Scrubber) -> None:
        for number, image_id in enumerate(world.images):
            scrubber._queue.cancel(image_id)
            scrubber._queue.add(image_id, 0.0, owner=f"somebody {number}")

    assert world.run(100, forge) == pytest.approx(9.5, abs=1)
    assert world.statuses() == {"deleted": 20}


def test_image_without_a_turn_does_not_hold_up_the_next_one() -> None:
    settings = replace(SETTINGS, owner_rate=0.001, concurrency=1, batch_size=1)
    world = World(settings, a=fast)
    images = {world.add(owner, "a"): owner for owner in ("flood", "flood", "other")}
    _, *later = images

    async def add_again(scrubber: Scrubber) -> None:
        for image_id in later:
            scrubber._queue.cancel(image_id)
        await anyio.sleep(5)
        for image_id in later:  # as if they had failed before, which gives no turn
            scrubber._queue.add(image_id, 0.0, owner=images[image_id], lane="a")
        scrubber.wake()

    world.run(20, add_again, idle=True)
    assert [(one.owner, int(one.at)) for one in world.asked] == [("flood", 0), ("other", 5)]


def test_lifted_owner_rate_makes_all_images_due() -> None:
    world = World(replace(SETTINGS, owner_rate=0.01), a=fast)
    for number in range(100):
        world.add(f"o{number % 2}", "a")

    async def lift(scrubber: Scrubber) -> None:
        await anyio.sleep(20)
        assert world.statuses()["deleted"] == 2
        scrubber.change(SETTINGS)

    assert world.run(100, lift) == pytest.approx(20, abs=2)
    assert world.statuses() == {"deleted": 100}


def test_lifted_owner_rate_does_not_shorten_retries() -> None:
    """The image waited for its owner's turn, had it, and failed."""
    in_use = Verdict(Outcome.IN_USE, "in_use")
    world = World(replace(SETTINGS, owner_rate=1.0), a=lambda _: (0.02, in_use))
    images = {world.add("o", "a") for _ in range(3)}

    async def lift(scrubber: Scrubber) -> None:
        await anyio.sleep(20)
        scrubber.change(SETTINGS)

    world.run(SETTINGS.delays.in_use / 2, lift)
    assert sorted(one.image_id for one in world.asked) == sorted(images)


def test_longer_delay_does_not_postpone_retries() -> None:
    world = World(a=lambda now: fast(now) if now > 10 else down(now))
    for _ in range(10):
        world.add("o", "a")

    async def lengthen(scrubber: Scrubber) -> None:
        await anyio.sleep(5)
        policy = replace(SETTINGS.policy, scrub_time=timedelta(days=30))
        scrubber.change(replace(SETTINGS, policy=policy))

    assert world.run(1000, lengthen) < 200


def test_unknown_image_is_looked_up_once_with_one_store() -> None:
    world = World(a=fast)
    claims: list[Collection[str]] = []
    claim = world.claim

    def counted(image_ids: Collection[str], policy: Policy) -> Seen:
        claims.append(image_ids)
        return claim([name for name in image_ids if name in world.images], policy)

    world.claim = counted  # type: ignore[method-assign] # counted

    async def forge(scrubber: Scrubber) -> None:
        scrubber._queue.add("00000000-0000-4000-8000-ffffffffffff", 0.0)
        scrubber.wake()

    world.add("o", "a")
    world.run(20, forge)
    assert len(claims) <= 2


def test_defect_in_a_look_delays_only_its_image() -> None:
    world = World(a=fast, b=fast)
    images = [world.add("o", "a") for _ in range(9)]
    resolve = world.resolve

    def break_early(row: LocationRow) -> Target:
        if row.value.endswith(images[4]) and anyio.current_time() < 50:
            raise RuntimeError("a defect")
        return resolve(row)

    world.resolve = break_early  # type: ignore[method-assign] # a defect
    assert world.run(200) == pytest.approx(60, abs=2)
    assert world.statuses() == {"deleted": 9}
    assert len(world.asked) == 9


def there(_now: float) -> Presence:
    return Presence.THERE


class TestMissing:
    @pytest.mark.parametrize("count", [1, 5, 500])
    def test_wrong_store_settles_nothing_until_repaired(
        self, count: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = World(a=lambda now: (0.05, GONE if now > 60 else NOT_FOUND))
        world.live["a"] = lambda now: Presence.THERE if now > 60 else Presence.ABSENT
        for number in range(count):
            world.add(f"o{number % 7}", "a")

        async def mend(scrubber: Scrubber) -> None:
            await anyio.sleep(59)
            assert world.statuses() == {"pending_delete": count}
            assert all(world.left(image_id) for image_id in world.images)
            assert caplog.text.count("is paused: image live is active, and its 1 bytes") == 1
            await anyio.sleep(2)
            scrubber.change(world.settings)

        assert world.run(120, mend) < 80
        assert {one.verdict for one in world.asked if one.at > 60} == {GONE}
        assert world.statuses() == {"deleted": count}
        assert world.questions <= 4

    @pytest.mark.costly
    def test_data_missing_from_a_proven_store_is_gone_at_once(self) -> None:
        world = World(a=missing)
        world.live["a"] = there
        for number in range(4000):
            world.add(f"o{number % 7}", "a")
        scrubbers: list[Scrubber] = []

        async def keep(scrubber: Scrubber) -> None:
            scrubbers.append(scrubber)

        world.run(600, keep)
        assert world.statuses() == {"deleted": 4000}
        assert len(world.asked) == 4000
        assert world.questions <= 4000 / SETTINGS.concurrency * 2
        assert scrubbers[0]._record.bytes_reclaimed.total() == 0

    def test_only_data_younger_than_the_witness_is_gone_if_an_older_one_is_absent(self) -> None:
        world = World(replace(SETTINGS, not_found_limit=3), a=missing)
        for number in range(12):
            world.add(f"o{number}", "a")

        def find(store: str, part: str) -> list[Witness]:
            target = Target(store, f"{store}://{part}", store)
            return [Witness("old", 0, target, 1), Witness("new", 6, target, 1)]

        world.find_witnesses = find  # type: ignore[method-assign] # two instead of one
        answers = cycle([Presence.ABSENT, Presence.THERE])
        world.live["a"] = lambda _: next(answers)
        world.run(60)
        gone = [world.status(image_id) == "deleted" for image_id in world.images]
        assert gone == [False] * 6 + [True] * 6

    def test_throttled_proof_makes_images_wait(self) -> None:
        world = World(a=missing)
        world.live["a"] = lambda now: Presence.THERE if now > 60 else Presence.UNKNOWN
        for number in range(50):
            world.add(f"o{number % 7}", "a")

        async def watch(_: Scrubber) -> None:
            await anyio.sleep(59)
            assert world.statuses() == {"pending_delete": 50}

        world.run(900, watch)
        assert world.statuses() == {"deleted": 50}

    def test_stores_are_proven_separately(self) -> None:
        world = World(a=missing, b=missing)
        world.live |= {"a": lambda _: Presence.ABSENT, "b": there}
        for number in range(50):
            world.add(f"o{number % 3}", "a", "b")
            world.add(f"o{number % 3}", "b")
        world.run(60)
        assert world.statuses() == {"pending_delete": 50, "deleted": 50}
        assert all("a" in world.left(image_id) for image_id in world.images[::2])

    def test_answers_from_before_a_repair_are_retried(self) -> None:
        """This holds even if the store is proven afterwards."""
        world = World(a=lambda now: (1.0, GONE if now > 0.5 else NOT_FOUND))
        world.live["a"] = there
        for number in range(16):
            world.add(f"o{number}", "a")

        async def mend(scrubber: Scrubber) -> None:
            await anyio.sleep(0.5)
            scrubber.change(world.settings)

        assert world.run(60, mend) < 20
        assert NOT_FOUND in {one.verdict for one in world.asked}
        gone = {one.image_id for one in world.asked if one.verdict == GONE}
        assert gone == set(world.images)

    def test_store_paused_from_the_start_is_not_asked(self) -> None:
        world = World(a=fast, b=fast)
        for number in range(20):
            world.add("o", "ab"[number % 2])

        async def pause(scrubber: Scrubber) -> None:
            scrubber._lanes.of("a").breaker.force_open("an image is not there")

        world.run(30, pause)
        assert {one.store for one in world.asked} == {"b"}
        assert world.statuses() == {"pending_delete": 10, "deleted": 10}


class TestMissingWithoutLiveImages:
    def test_many_missing_are_not_settled(self, caplog: pytest.LogCaptureFixture) -> None:
        world = World(a=missing)
        for number in range(200):
            world.add(f"o{number % 3}", "a")
        world.run(60)
        assert world.statuses() == {"pending_delete": 200}
        assert all(world.left(image_id) == {"a"} for image_id in world.images)
        assert caplog.text.count("Store a is paused: 20 images are not there") == 1

    def test_few_that_stay_missing_are_gone(self) -> None:
        world = World(a=missing)
        for number in range(10):
            world.add(f"o{number}", "a")
        assert world.run(200) >= 3
        assert world.statuses() == {"deleted": 10}

    def test_found_data_proves_the_store(self) -> None:
        answers = chain([NOT_FOUND] * 30, [GONE] * 10, repeat(NOT_FOUND))
        world = World(a=lambda _: (0.02, next(answers)))
        for number in range(40):
            world.add(f"o{number}", "a")
        world.run(60)
        assert world.statuses() == {"deleted": 40}
        assert len(world.asked) <= 40 + 30 + SETTINGS.concurrency

    def test_a_reload_does_not_start_the_count_again(self) -> None:
        """The store is the wrong one, and options of others are changed every hour."""
        world = World(a=missing, b=fast)

        async def trickle(scrubber: Scrubber) -> None:
            for number in range(12):
                for owner in "xyz":
                    scrubber._queue.add(world.add(owner, "a"), anyio.current_time(), owner=owner)
                scrubber.wake()
                await anyio.sleep(3600)
                if scrubber._lanes.of("a").breaker.state is not State.FORCED_OPEN:
                    scrubber.change(replace(world.settings, store_rate={"b": number + 1.0}))

        world.run(12 * 3600, trickle, idle=True)
        assert world.statuses()["deleted"] < 20
        assert world.statuses()["pending_delete"] >= 16

    def test_a_repair_starts_the_count_again(self) -> None:
        world = World(a=missing)
        images = [world.add(f"o{number % 3}", "a") for number in range(30)]

        async def mend(scrubber: Scrubber) -> None:
            await anyio.sleep(30)
            assert scrubber._lanes.of("a").breaker.state is State.FORCED_OPEN
            for image in images[:20]:
                world.finish(image)
            scrubber.change(world.settings)

        world.run(400, mend)
        assert world.statuses() == {"deleted": 30}

    def test_few_are_not_gone_for_a_process_that_ends_soon(self) -> None:
        world = World(replace(SETTINGS, trusts_few_missing=False), a=missing)
        for number in range(5):
            world.add(f"o{number}", "a")
        world.run(400)
        assert world.statuses() == {"pending_delete": 5}

    def test_operator_may_acknowledge(self) -> None:
        world = World(a=missing)
        for number in range(200):
            world.add(f"o{number % 3}", "a")

        async def acknowledge(scrubber: Scrubber) -> None:
            await anyio.sleep(30)
            assert world.statuses() == {"pending_delete": 200}
            acknowledged = frozenset({"a"})
            scrubber.change(replace(world.settings, acknowledged_stores=acknowledged))

        assert 30 < world.run(120, acknowledge) < 80
        assert world.statuses() == {"deleted": 200}


def test_lost_write_access_shuts_the_store_at_once() -> None:
    world = World(a=lambda _: (0.01, Verdict(Outcome.STORE_TROUBLE, "no_write_access")))
    for _ in range(50):
        world.add("o", "a")
    world.run(3.5)  # before the first probe
    assert len(world.asked) <= 16


def test_images_of_a_stopped_owner_do_not_keep_a_store_shut() -> None:
    """One project's images always fail; the answer to another's shuts the store once."""
    world = CountingWorld(a=fast)
    for _ in range(200):
        world.of_images[world.add("failing", "a")] = down
    images = [world.add("good", "a") for _ in range(40)]
    lost = Verdict(Outcome.STORE_TROUBLE, "no_write_access")
    world.of_images[images[-1]] = lambda now: fast(now) if now > 60 else (0.01, lost)
    world.run(180)
    assert {world.status(image_id) for image_id in images} == {"deleted"}
    assert world.claims <= len(world.asked) + 5, "images were claimed and released"


def test_a_stopped_owner_is_found_to_be_well_beside_one_whose_images_fail() -> None:
    """The images of another project that always fail may not have all probes for themselves."""
    world = World(a=fast)
    stopped = [world.add("stopped", "a") for _ in range(60)]
    for image_id in stopped:
        world.of_images[image_id] = lambda now: fast(now) if now > 100 else down(now)
    for _ in range(15):
        for _ in range(6):
            world.add("mixed", "a")
        world.of_images[world.add("mixed", "a")] = down
    for _ in range(20):
        world.add("mixed", "a")
    lost = Verdict(Outcome.STORE_TROUBLE, "no_write_access")
    world.of_images[world.add("mixed", "a")] = lambda now: (0.01, lost) if now < 30 else down(now)
    world.run(400)
    assert {world.status(image_id) for image_id in stopped} == {"deleted"}


def test_partial_success_is_kept() -> None:
    world = World(a=fast, b=lambda now: fast(now) if now > 30 else down(now), c=fast)
    images = [world.add(f"o{number}", "a", "b", "c") for number in range(10)]
    left: list[set[str | None]] = []

    async def watch(_: Scrubber) -> None:
        await anyio.sleep(25)
        left.extend(world.left(image_id) for image_id in images)

    world.run(200, watch)
    # A location in a store that is shut is not asked for, nor is any after it in that attempt.
    assert all("a" not in stores and "b" in stores for stores in left)
    assert world.statuses() == {"deleted": 10}
    for store in "ac":
        assert Counter(one.image_id for one in world.asked if one.store == store) == dict.fromkeys(
            images, 1
        )


def test_job_that_fails_during_a_renewal_is_released() -> None:
    # Leases are looked at every 20 s, and renewed when they are 40 s old.
    amid_renewal = 60 + REGISTRY_SECONDS / 2
    # None is due again, and claimed as a probe, before it is looked at.
    settings = replace(SETTINGS, delays=replace(SETTINGS.delays, initial=600))
    world = World(settings, a=lambda now: (max(0.0, amid_renewal - now), DOWN))
    for number in range(10):
        world.add(f"o{number}", "a")
    released: list[Counter[str]] = []

    async def watch(_: Scrubber) -> None:
        await anyio.sleep(amid_renewal + 0.2)  # the breaker is open
        released.append(world.statuses())

    world.run(62, watch)
    assert [one.at < 1 for one in world.asked[:10]] == [True] * 10
    assert released == [{"given back": 10}]


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_jobs_waiting_for_the_rate_are_released_at_the_end(rate: float) -> None:
    world = World(replace(SETTINGS, store_rate={"a": rate}), a=fast)
    for _ in range(100):
        world.add("o", "a")
    world.run(10, drain=30)
    assert world.statuses()["pending_delete"] >= 90
    assert all(not world.left(i) or world.status(i) == "pending_delete" for i in world.images)
