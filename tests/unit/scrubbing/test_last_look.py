# SPDX-License-Identifier: Apache-2.0
"""The last look for shared data before a delete, on a registry and stores in memory."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

import anyio
import pytest
from oslo_db import exception as db_exception

from evscrub.domain.clock import Clock, DatabaseClock, Moment
from evscrub.domain.decisions import ALIVE, Leave, LocationRow
from evscrub.domain.verdict import CLAIM_LOST, GONE, SHARED, Verdict
from evscrub.flow_control.circuit_breaker import State
from evscrub.scrubbing.batch import Batch
from evscrub.scrubbing.job import Job
from evscrub.scrubbing.lane import Lane
from evscrub.scrubbing.last_look import LOOK_SECONDS, NO_LAST_LOOK, LastLook
from evscrub.scrubbing.scrubber import Scrubber
from tests.unit.scrubbing.test_deleter import Bench
from tests.unit.world import World, fast

HANG_SECONDS = 75.0


def let_time_pass(look: LastLook, times: list[float]) -> None:
    """Give a last look its own clock."""
    clock = Clock(lambda: times[0], lambda: times[0])
    look._context = replace(look._context, database_clock=DatabaseClock(clock))


class SharingWorld(World):
    """A world in which another image gets the URL of a location at a given time."""

    shared_since = 10.0
    verdict = SHARED
    looks = 0
    fails_during = range(0)

    def among(self, rows: Collection[LocationRow]) -> dict[int, Verdict]:
        self.looks += 1
        now = anyio.current_time()
        if int(now) in self.fails_during:
            raise db_exception.DBError(None)
        since = self.shared_since
        return {row.id: self.verdict for row in rows if row.store == "wanted" and now >= since}


def hangs(_now: float) -> tuple[float, Verdict]:
    return HANG_SECONDS, GONE


def test_data_shared_during_a_hang_is_kept() -> None:
    world = SharingWorld(slow=hangs, wanted=fast)
    image = world.add("owner", "slow", "wanted")
    world.run(until=200)
    assert [asked.store for asked in world.asked] == ["slow"]
    assert world.status(image) == "deleted"
    assert world.left(image) == set()


def test_restored_data_is_kept_after_a_hang() -> None:
    """The database had lost the claim."""
    world = SharingWorld(slow=hangs, wanted=fast)
    world.verdict = CLAIM_LOST
    image, other = world.add("owner", "slow", "wanted"), world.add("owner", "wanted")

    async def restore(scrubber: Scrubber) -> None:
        await anyio.sleep(HANG_SECONDS / 2)
        world.decisions[image] = Leave(ALIVE)
        await anyio.sleep(HANG_SECONDS)
        assert scrubber._record.troubles == {}
        assert scrubber._lanes.of("wanted").breaker.state is State.CLOSED

    world.run(until=200, meanwhile=restore, idle=True)
    assert sorted((asked.store, asked.image_id) for asked in world.asked) == [
        ("slow", image),
        ("wanted", other),
    ]
    assert world.left(image) == {"wanted"}


def test_unshared_data_is_deleted_after_a_hang() -> None:
    world = SharingWorld(slow=hangs, wanted=fast)
    world.shared_since = 1000
    world.add("owner", "slow", "wanted")
    world.run(until=200)
    assert [asked.store for asked in world.asked] == ["slow", "wanted"]
    assert world.looks == 2


def test_fast_store_needs_no_further_looks() -> None:
    world = SharingWorld(fast=fast)
    for _ in range(500):
        world.add("owner", "fast")
    world.run(until=60)
    assert len(world.asked) == 500
    assert world.looks <= 500 / 10


def test_nothing_is_deleted_without_a_last_look() -> None:
    world = SharingWorld(slow=lambda _: (10.0, GONE), wanted=fast)
    world.fails_during, world.shared_since = range(5, 12), math.inf
    image = world.add("owner", "slow", "wanted")
    reasons: list[str] = []

    async def watch(scrubber: Scrubber) -> None:
        note = scrubber._settler._note_trouble

        def noting(job: Job, store: str, verdict: Verdict) -> float:
            reasons.append(verdict.reason)
            return note(job, store, verdict)

        scrubber._settler._note_trouble = noting  # type: ignore[method-assign] # notes it too

    world.run(until=6000, meanwhile=watch)
    assert reasons == ["no_last_look"]
    # Not before it was claimed again, which takes a look of its own.
    assert [asked.store for asked in world.asked] == ["slow", "wanted"]
    assert world.looks == 3
    assert world.status(image) == "deleted"


def test_slow_look_does_not_count() -> None:
    bench = Bench(("a",))
    look = bench.look
    times = [0.0]
    let_time_pass(look, times)

    def among(_rows: object) -> dict[int, Verdict]:
        times[0] += LOOK_SECONDS + 0.1
        # Taken for an answer, it would be asked for without end.
        assert times[0] <= bench.now + 10 * LOOK_SECONDS
        return {}

    look._among = among
    times[0] = bench.now + LOOK_SECONDS + 0.1
    assert bench.work() == bench.jobs
    assert not bench.deleted
    assert bench.jobs[0].trouble == ("a", NO_LAST_LOOK)


def test_last_of_several_looks_counts() -> None:
    bench = Bench(("a",))
    job, look = bench.jobs[0], bench.look
    (row,) = job.claim.locations
    times = [bench.now + LOOK_SECONDS + 0.1]
    let_time_pass(look, times)
    answers = [(LOOK_SECONDS + 0.1, {row.id: SHARED}), (0.0, dict[int, Verdict]())]

    def among(_rows: object) -> dict[int, Verdict]:
        seconds, found = answers.pop(0)
        times[0] += seconds
        return found

    look._among = among
    assert bench.work() == [job]
    assert not answers
    assert bench.deleted == [row.value]


def test_waiting_jobs_share_the_next_look() -> None:
    bench = Bench(*[("a",)] * 9)
    look = bench.look
    asked: list[int] = []

    async def call(_function: object, rows: list[LocationRow]) -> dict[int, Verdict]:
        asked.append(len(rows))
        await anyio.sleep(0.01)
        return {rows[0].id: SHARED}

    look._context.calls.call = call  # takes time
    bench.now += LOOK_SECONDS + 0.1
    spared: list[dict[int, Verdict] | None] = []

    async def renew_all() -> None:
        async def renew(index: int) -> None:
            await look.renew([bench.jobs[index]])
            spared.append(dict(bench.jobs[index].needed_elsewhere))

        async with anyio.create_task_group() as tasks:
            for index in range(len(bench.jobs)):
                tasks.start_soon(renew, index)

    anyio.run(renew_all)
    assert asked == [9]
    assert sorted(len(ids or ()) for ids in spared) == [0] * 8 + [1]


def test_look_does_not_get_old_on_the_way_to_the_thread() -> None:
    """A job that waited for its turn is looked at again a little early, or its turn is lost."""
    bench = Bench(("a",))
    deleter = bench.scrubber._pipeline._deleter
    select = deleter.select

    def selecting(lane: Lane, batch: Batch) -> tuple[list[Job], list[Job]]:
        selected = select(lane, batch)
        bench.now += 0.02
        return selected

    deleter.select = selecting  # type: ignore[method-assign] # takes time
    bench.now += LOOK_SECONDS - 0.01
    bench.work_once()
    assert len(bench.deleted) == 1


@pytest.mark.parametrize(
    ("seconds", "due"), [(LOOK_SECONDS / 2 - 0.1, False), (LOOK_SECONDS / 2 + 0.1, True)]
)
def test_look_is_due_before_it_is_old(seconds: float, due: bool) -> None:
    bench = Bench(("a",))
    bench.now += seconds
    batch = bench.lane.begin(bench.now, 100)
    assert batch is not None
    assert bench.scrubber._pipeline.may_delete(bench.lane, batch) is not due


def test_one_old_look_of_a_batch_is_renewed() -> None:
    bench = Bench(("a",), ("a",))
    batch = bench.lane.begin(bench.now, 100)
    assert batch is not None
    bench.jobs[0].looked = Moment(bench.now - LOOK_SECONDS, bench.now - LOOK_SECONDS)
    assert not bench.scrubber._pipeline.may_delete(bench.lane, batch)


@pytest.mark.parametrize(("seconds", "deleted"), [(1.0, 2), (1.2, 1)])
def test_thread_deletes_nothing_after_an_old_look(seconds: float, deleted: int) -> None:
    bench = Bench(("a",), ("a",))
    bench.now += LOOK_SECONDS / 2 - 0.1

    def meanwhile(_number: int) -> Verdict:
        bench.now += seconds
        return GONE

    bench.meanwhile = meanwhile
    bench.work_once()
    assert len(bench.deleted) == deleted
    # What is left is looked at again, not forgotten.
    waiting = bench.lane.backlog.drain()
    assert {*bench.ended, *waiting} == set(bench.jobs)
    assert all(job.next_store == "a" for job in waiting)


def test_look_covers_all_pending_locations() -> None:
    """A thread deletes several locations without another look."""
    bench = Bench(("a", "a", "b"))
    look = bench.look
    asked: list[int] = []

    def among(rows: Collection[LocationRow]) -> dict[int, Verdict]:
        asked.extend(row.id for row in rows)
        return {}

    look._among = among
    bench.now += LOOK_SECONDS + 0.1
    bench.work()
    assert asked == [row.id for row in bench.jobs[0].claim.locations]


def test_later_location_that_got_shared_is_kept() -> None:
    bench = Bench(("a", "a"))
    second = bench.jobs[0].claim.locations[1]
    bench.look._among = lambda _rows: {second.id: SHARED}
    bench.now += LOOK_SECONDS + 0.1
    (job,) = bench.work()
    assert bench.deleted == [job.claim.locations[0].value]
    assert job.is_complete


def test_nothing_is_deleted_after_a_failed_look(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(("a",))
    looks = 0

    def among(_rows: object) -> dict[int, Verdict]:
        nonlocal looks
        looks += 1
        if looks > 1:  # taken for an answer, it would be asked for without end
            raise AssertionError("it is asked for without end")
        raise LookupError("a defect")

    bench.look._among = among
    bench.now += LOOK_SECONDS + 0.1
    (job,) = bench.work()
    assert not bench.deleted
    assert looks == 1
    assert job.trouble == ("a", NO_LAST_LOOK)
    assert f"not deleted: {job.image_id}" in caplog.text


def test_answer_stays_with_a_job_that_another_worker_gets() -> None:
    """As where the pace is cut, and jobs taken back, while their last look is under way."""
    bench = Bench(("a",))
    (row,) = bench.jobs[0].claim.locations
    looks: list[int] = []

    def among(_rows: object) -> dict[int, Verdict]:
        looks.append(1)
        bench.lane.slow_down()
        return {row.id: SHARED}

    bench.look._among = among
    bench.now += LOOK_SECONDS + 0.1
    bench.work_once()
    assert list(bench.lane.backlog.drain()) == bench.jobs
    bench.lane.push(bench.jobs[0])
    assert bench.work() == bench.jobs
    assert looks == [1]
    assert not bench.deleted
    assert bench.jobs[0].is_complete
