# SPDX-License-Identifier: Apache-2.0
"""A worker: what its thread deletes, and where each job of its batch goes."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest

from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.domain.evidence import Scope
from evscrub.domain.verdict import (
    EMPTY_DIRECTORY,
    GONE,
    MISSING_BELOW,
    MISSING_DIRECTORY,
    SHARED,
    Outcome,
    Verdict,
)
from evscrub.flow_control.health import Change, Event
from evscrub.queueing.delay_queue import DelayQueue, Source
from evscrub.registry.claims import Claim
from evscrub.scrubbing.batch import OVERDUE_SECONDS, Answer, Batch
from evscrub.scrubbing.context import Context
from evscrub.scrubbing.job import Job, JobState, Lease, Location, LocationState
from evscrub.scrubbing.lane import Lane
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.scrubbing.workers import Workers
from evscrub.stores.backends import Target
from tests.unit.simulated_loop import run
from tests.unit.world import EPOCH, NOT_FOUND, THROTTLED, World, instant, simulated_threads

#: What a worker goes through in simulated time before it is taken to go on without end.
WORK_SECONDS = 5.0


class Bench:
    """A scrubber with claimed images, whose clock moves only when a test says so.

    :param images: the stores of each.
    """

    def __init__(self, *images: tuple[str, ...]) -> None:
        self.now = 1000.0
        self.deleted: list[str] = []
        self.meanwhile: Callable[[int], Verdict] = lambda _: GONE  #: told how many went before
        world: Any = World(a=instant, b=instant)
        ids = [world.add("o", *stores) for stores in images]
        world.delete = self._delete
        clock = Clock(lambda: self.now, lambda: self.now)

        async def make() -> tuple[Scrubber, list[Claim]]:
            context = Context.create(world.settings, world.database, DatabaseClock(clock))
            scrubber = Scrubber(DelayQueue(10), world, world, context)
            scrubber._claimer._shared_urls = world
            return scrubber, world.claim(ids, world.settings.policy).claims

        self.scrubber, claims = run(make)
        self.lane = self.scrubber._lanes.of("a")
        self.lane.took(1e-4)  # so that they go together
        self.jobs = []
        for claim in claims:
            locations = [Location(row, world.resolve(row)) for row in claim.locations]
            lease = Lease(EPOCH, clock.moment())
            job = Job(claim, lease, 0.0, Source.SWEEP, locations)
            self.jobs.append(job)
            self.scrubber._leases.add(job)
            self.lane.push(job)

    @property
    def look(self) -> Any:
        """The last look for shared data."""
        return self.scrubber._pipeline._deleter._last_look

    @property
    def ended(self) -> list[Job]:
        """The jobs that wait to be settled."""
        return self.scrubber._settler._ended

    def _delete(self, target: Target) -> Verdict:
        verdict = self.meanwhile(len(self.deleted))
        self.deleted.append(target.url)
        return verdict

    def delete(self) -> list[Answer]:
        """Run the deletes of one worker thread."""
        batch = self.lane.begin(self.now, 100)
        assert batch is not None
        self.scrubber._pipeline._deleter.delete(batch)
        return batch.answers

    def work(self) -> list[Job]:
        """Run workers until none has work; returns the jobs that ended."""

        async def work() -> None:
            with anyio.fail_after(WORK_SECONDS):
                lanes = list(self.scrubber._lanes)
                async with anyio.create_task_group() as tasks:
                    self.scrubber._tasks = tasks
                    tasks.start_soon(self.scrubber._finish_deletes)
                    while any(lane.backlog for lane in lanes):
                        self.scrubber._start_deletes()
                        while any(lane.running for lane in lanes):  # noqa: ASYNC110 - no event
                            await anyio.sleep(0.001)
                    tasks.cancel_scope.cancel()

        with simulated_threads():
            run(work)
        return self.ended

    def work_once(self) -> None:
        """Run one worker with one batch."""

        async def work() -> None:
            batch = self.lane.begin(self.now, 100)
            assert batch is not None
            with anyio.fail_after(WORK_SECONDS):
                pipeline = self.scrubber._pipeline
                await pipeline.prepare(self.lane, batch)
                while self.lane.running:
                    for ended in await pipeline.deleted():
                        await pipeline.prove(*ended)

        with simulated_threads():
            run(work)


@pytest.fixture
def bench() -> Bench:
    return Bench(*[("a",)] * 5)


def given(answers: list[Answer]) -> list[Verdict | None]:
    return [answer.verdict for answer in answers]


def test_worker_deletes_the_whole_batch(bench: Bench) -> None:
    answers = bench.delete()
    assert [answer.job for answer in answers] == bench.jobs
    assert given(answers) == [GONE] * 5
    assert not bench.lane.backlog


def test_worker_takes_one_job_until_deletes_are_timed(bench: Bench) -> None:
    bench.lane.delete_seconds = 0
    assert len(bench.delete()) == 1
    assert len(bench.lane.backlog) == 4


def test_worker_stops_at_a_failed_delete(bench: Bench) -> None:
    bench.meanwhile = lambda number: THROTTLED if number == 1 else GONE
    assert given(bench.delete()) == [GONE, THROTTLED]


def test_jobs_not_started_return_to_the_backlog(bench: Bench) -> None:
    bench.meanwhile = lambda number: THROTTLED if number == 1 else GONE
    bench.work_once()
    assert [job.state for job in bench.jobs] == [JobState.ENDED] * 2 + [JobState.WAITING] * 3
    assert len(bench.lane.backlog) == 3
    assert bench.lane.running == 0


def test_one_proof_covers_all_missing_data(bench: Bench) -> None:
    bench.meanwhile = lambda _: NOT_FOUND
    assert len(bench.delete()) == 5


def test_expired_leases_delete_nothing(bench: Bench) -> None:
    """For instance if they expired while the worker waited for a thread."""
    bench.now += 81
    assert given(bench.delete()) == [None] * 5
    assert not bench.deleted


def test_time_before_the_first_delete_does_not_count_as_its_own(bench: Bench) -> None:
    batch = bench.lane.begin(bench.now, 1)
    assert batch is not None
    bench.now += 1  # for a thread
    overdue: list[bool] = []

    def look(_: int) -> Verdict:
        bench.now += OVERDUE_SECONDS - 0.5
        overdue.append(batch.is_overdue(bench.now))
        return GONE

    bench.meanwhile = look
    bench.scrubber._pipeline._deleter.delete(batch)
    assert overdue == [False]


def test_thread_skips_a_lost_lease(bench: Bench) -> None:
    def lose(number: int) -> Verdict:
        bench.jobs[3].lease.is_lost = number == 2
        return GONE

    bench.meanwhile = lose
    assert given(bench.delete()) == [GONE, GONE, GONE, None, GONE]
    assert bench.jobs[3].claim.locations[0].value not in bench.deleted


def test_thread_skips_an_aged_lease(bench: Bench) -> None:
    def age(number: int) -> Verdict:
        if number == 2:
            lease = bench.jobs[3].lease
            lease.asked = replace(lease.asked, boot=bench.now - 81)
        return GONE

    bench.meanwhile = age
    assert given(bench.delete()) == [GONE, GONE, GONE, None, GONE]


def test_lost_lease_stops_the_second_location() -> None:
    """For instance if a concurrent renewal finds that another agent took it over."""
    bench = Bench(("a", "a"))

    def lose(_: int) -> Verdict:
        bench.jobs[0].lease.is_lost = True
        return GONE

    bench.meanwhile = lose
    assert bench.work() == bench.jobs
    assert len(bench.deleted) == 1
    assert [each.state for each in bench.jobs[0].locations] == [
        LocationState.DELETED,
        LocationState.PENDING,
    ]


def test_job_without_lease_ends_undeleted(bench: Bench) -> None:
    bench.jobs[0].lease.is_lost = True
    assert bench.work()[0] is bench.jobs[0]
    assert len(bench.deleted) == 4
    assert bench.jobs[0].settlement().gone == []


def test_jobs_taken_back_by_the_lane_are_not_started(bench: Bench) -> None:
    """For instance if the store is paused or the agent stops."""

    def release(number: int) -> Verdict:
        if number == 1:
            assert bench.lane.drain() == bench.jobs[2:]
        return GONE

    bench.meanwhile = release
    assert len(bench.delete()) == 2
    assert [job.state for job in bench.jobs[2:]] == [JobState.WAITING] * 3


def test_jobs_taken_back_before_the_thread_starts_are_not_started(bench: Bench) -> None:
    def take_back(*_: object) -> dict[int, Verdict]:
        bench.lane.drain()
        return {}

    bench.look._among = take_back
    bench.now += 2.1  # the last look is too old
    bench.work_once()
    assert not bench.deleted


def test_slowed_lane_takes_back_jobs_not_started(bench: Bench) -> None:
    batch = bench.lane.begin(bench.now, 3)
    assert batch is not None
    bench.lane.slow_down()
    assert not batch
    assert len(bench.lane.backlog) == 5


def test_locations_of_an_image_are_deleted_serially() -> None:
    bench = Bench(("a", "a", "b"), ("a",))
    assert set(bench.work()) == set(bench.jobs)
    first, second = bench.jobs
    rows = [row.value for row in first.claim.locations]
    assert [url for url in bench.deleted if url in rows] == rows
    assert first.settlement().gone == [row.id for row in first.claim.locations]
    assert second.is_complete


def test_kept_location_does_not_block_the_others() -> None:
    bench = Bench(("a", "a"), ("a",))
    bench.meanwhile = lambda number: THROTTLED if number == 0 else GONE
    bench.work()
    states = [each.state for each in bench.jobs[0].locations]
    assert states == [LocationState.FAILED, LocationState.DELETED]


def test_defect_in_the_thread_fails_only_its_image(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(number: int) -> Verdict:
        if number == 2:
            raise LookupError("no such thing")
        return GONE

    bench.meanwhile = fail
    caplog.set_level(logging.ERROR)
    bench.work_once()
    check_defect(bench, caplog)
    assert len(bench.lane.backlog) == 2


def test_defect_in_the_loop_fails_only_its_image(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = bench.scrubber._lanes._judge

    def fail(lane: Lane, answer: Answer, *others: Any) -> list[Job]:
        if answer.job is bench.jobs[2]:
            raise LookupError("no such thing")
        return judge(lane, answer, *others)

    monkeypatch.setattr(bench.scrubber._lanes, "_judge", fail)
    caplog.set_level(logging.ERROR)
    assert bench.work() == bench.jobs
    check_defect(bench, caplog)
    assert all(job.is_complete for job in bench.jobs[3:])


def test_job_is_given_up_if_no_thread_starts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(bench.scrubber._workers, "start", fail)
    bench.work_once()
    assert bench.ended == bench.jobs[:1]
    assert bench.jobs[0].trouble is not None
    assert not bench.jobs[0].settlement().whole
    assert len(bench.lane.backlog) == 4


@pytest.mark.parametrize("defect", [LookupError("no such thing"), SystemExit(1)])
def test_defect_of_the_thread_itself_fails_only_its_image(
    bench: Bench, defect: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleter = bench.scrubber._pipeline._deleter

    def fail(batch: Batch) -> None:
        batch.take()
        raise defect

    monkeypatch.setattr(deleter, "_delete_all", fail)
    batch = bench.lane.begin(bench.now, 100)
    assert batch is not None
    deleter.delete(batch)
    assert [(answer.job, answer.defect) for answer in batch.answers] == [(bench.jobs[0], defect)]
    assert batch.jobs == bench.jobs[1:]


@pytest.mark.parametrize("step", ["turns", "look", "prove", "apply"])
def test_defect_of_a_step_gives_up_the_batch(
    bench: Bench, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("no such thing")

    parts = {"turns": bench.scrubber._lanes, "apply": bench.scrubber._lanes}
    monkeypatch.setattr(parts.get(step, bench.scrubber._pipeline._deleter), step, fail)
    bench.work_once()
    assert not bench.lane.running
    assert bench.ended == bench.jobs
    assert all(job.trouble is not None for job in bench.jobs)


def test_job_without_an_answer_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(workers: Workers, lane: Lane, batch: Batch) -> None:
        batch.take()
        workers._running += 1
        workers._done.append((lane, batch))
        workers._tell()

    monkeypatch.setattr(
        bench.scrubber._workers, "start", functools.partial(fail, bench.scrubber._workers)
    )
    bench.work_once()
    assert not bench.lane.running
    assert bench.ended == bench.jobs
    assert bench.jobs[0].trouble is not None


def test_thread_deletes_nothing_that_is_needed_elsewhere_by_now(bench: Bench) -> None:
    number = bench.jobs[1].locations[0].row.id
    bench.jobs[1].needed_elsewhere = {number: SHARED}
    assert given(bench.delete()) == [GONE, None, GONE, GONE, GONE]


@pytest.mark.parametrize("missing", [[0], [0, 1, 2, 3, 4], []])
def test_one_missing_image_needs_a_proof(bench: Bench, missing: list[int]) -> None:
    bench.meanwhile = lambda number: NOT_FOUND if number in missing else GONE
    bench.lane.missing.limit = 20
    answers = bench.delete()
    deleter = bench.scrubber._pipeline._deleter
    assert deleter.needs_proof(bench.lane, answers) is bool(missing)
    bench.lane.missing.limit = 0
    assert not deleter.needs_proof(bench.lane, answers)


def test_no_delete_starts_while_the_agent_stops(bench: Bench) -> None:
    bench.scrubber._draining = True
    bench.scrubber._go_on()
    assert list(bench.lane.backlog) == bench.jobs


def check_defect(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Check that the third image is given up and the two before it are complete."""
    third = bench.jobs[2]
    assert [record.getMessage() for record in caplog.records] == [
        f"Cannot process image {third.image_id}"
    ]
    assert third.trouble is not None
    assert third.trouble[1].outcome is Outcome.UNKNOWN
    assert not third.is_complete
    assert all(job.is_complete for job in bench.jobs[:2])


@pytest.mark.parametrize("verdict", [MISSING_DIRECTORY, EMPTY_DIRECTORY, MISSING_BELOW])
@pytest.mark.parametrize(("limit", "gone"), [(0, True), (20, False)])
def test_acknowledged_store_reports_missing_data_as_gone(
    verdict: Verdict, limit: int, gone: bool
) -> None:
    """The limit is 0 there; otherwise an unmounted directory is no evidence about the data."""
    bench = Bench(("a",))
    bench.lane.missing.limit = limit
    bench.meanwhile = lambda _: verdict
    (job,) = bench.work()
    assert job.is_complete is gone
    assert bool(job.settlement().gone) is gone


def test_a_delete_that_hangs_is_in_work_from_its_beginning() -> None:
    bench = Bench(("a",))
    seen: list[tuple[int, float]] = []

    def hang(_: int) -> Verdict:
        bench.now += 60
        told = bench.scrubber.statistics().leases
        seen.append((told.in_work, told.longest_seconds))
        return GONE

    bench.meanwhile = hang
    bench.work()
    assert seen == [(1, 60)]


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("event", Event)
def test_change_for_the_worse_takes_back_jobs_that_no_worker_has_started(
    bench: Bench, event: Event, scope: Scope
) -> None:
    batch = bench.lane.begin(bench.now, 5)
    assert batch is not None
    released = bench.scrubber._lanes._follow(bench.lane, Change(event, scope, "o", "reason"))
    if event in {Event.SLOWED, Event.OPENED, Event.REFUSING}:
        assert not batch
    else:
        assert len(batch) == 5
    ends = scope is Scope.OWNER and event in {Event.OPENED, Event.REFUSING}
    assert released == (bench.jobs if ends else [])
    assert [job.state for job in released] == [JobState.WAITING] * len(released)
