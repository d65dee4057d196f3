# SPDX-License-Identifier: Apache-2.0
"""A worker's thread: an image, and those after it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest

from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.domain.evidence import Origin
from evscrub.domain.verdict import (
    EMPTY_DIRECTORY,
    GONE,
    MISSING_BELOW,
    MISSING_DIRECTORY,
    Outcome,
    Verdict,
)
from evscrub.queueing.delay_queue import DelayQueue, Source
from evscrub.registry.claims import Claim
from evscrub.scrubbing.job import Work
from evscrub.scrubbing.lane import RUN_SECONDS, Lane
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.scrubbing.workers import Answers
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
            queue, policy = DelayQueue(10), world.settings.policy
            scrubber = Scrubber(queue, world, world, clock, DatabaseClock(clock), world.settings)
            scrubber._claimer._shared_urls = world
            return scrubber, world.claim(ids, policy).claims

        self.scrubber, claims = run(make)
        self.lane = self.scrubber.lanes.of("a")
        self.works = [Work(claim, EPOCH, clock.moment(), 0.0, Source.SWEEP) for claim in claims]
        for work in self.works:
            work.targets.extend((row, world.resolve(row)) for row in work.claim.locations)
            self.lane.push(work)

    def _delete(self, target: Target) -> Verdict:
        verdict = self.meanwhile(len(self.deleted))
        self.deleted.append(target.url)
        return verdict

    def delete(self, turns: float = math.inf) -> Answers:
        """Let one thread do what it does."""
        answers: Answers = []
        slot = self.lane.begin(self.now)
        assert slot is not None
        self.scrubber.workers._delete_some(self.lane, slot, turns, answers)
        return answers

    def work(self) -> list[Work]:
        """Let one worker do what it does; returns the images that its lane is done with."""
        done: list[Work] = []
        self.scrubber.workers._on_worked = done.append
        slot = self.lane.begin(self.now)
        assert slot is not None

        async def work() -> None:
            with anyio.fail_after(WORK_SECONDS):
                await self.scrubber.workers.work(self.lane, slot)

        with simulated_threads():
            run(work)
        return done


@pytest.fixture
def bench() -> Bench:
    return Bench(*[("a",)] * 5)


def test_takes_all_that_waits(bench: Bench) -> None:
    answers = bench.delete()
    assert [work for work, _ in answers] == bench.works
    assert all(len(verdicts) == 1 for _, verdicts in answers)
    assert all(work.begun_at is not None for work in bench.works)
    assert not bench.lane.backlog


@pytest.mark.parametrize("turns", [1, 3])
def test_takes_as_many_as_it_has_turns(bench: Bench, turns: int) -> None:
    assert len(bench.delete(turns)) == turns
    assert len(bench.lane.backlog) == 5 - turns


def test_locations_need_a_turn_each() -> None:
    bench = Bench(("a", "a"), ("a", "a"))
    assert [len(verdicts) for _, verdicts in bench.delete(3)] == [2, 1]


def test_ends_with_what_is_not_plainly_gone(bench: Bench) -> None:
    bench.meanwhile = lambda number: THROTTLED if number == 1 else GONE
    assert len(bench.delete()) == 2
    assert len(bench.lane.backlog) == 3


def test_goes_on_after_what_is_missing_so_that_one_proof_serves_for_many(bench: Bench) -> None:
    bench.meanwhile = lambda _: NOT_FOUND
    assert len(bench.delete()) == 5


def test_ends_when_it_took_long(bench: Bench) -> None:
    def slow(_: int) -> Verdict:
        bench.now += RUN_SECONDS * 0.6
        return GONE

    bench.meanwhile = slow
    assert len(bench.delete()) == 2
    assert len(bench.lane.backlog) == 3


def test_ends_when_the_store_is_slowed_meanwhile(bench: Bench) -> None:
    """By what another worker was told."""

    def slow(number: int) -> Verdict:
        if number == 1:
            bench.lane.answered(THROTTLED, Origin("o", ""), 0)
        return GONE

    bench.meanwhile = slow
    assert len(bench.delete()) == 2


def test_ends_when_the_store_is_paused_meanwhile(bench: Bench) -> None:
    """Before its backlog is released."""

    def pause(number: int) -> Verdict:
        if number == 1:
            bench.lane.breaker.blow("x")
        return GONE

    bench.meanwhile = pause
    assert len(bench.delete()) == 2


def test_does_nothing_without_a_lease(bench: Bench) -> None:
    """As where it ran out while the thread was waited for."""
    bench.now += 81
    assert bench.delete() == [(bench.works[0], [])]
    assert not bench.deleted


def test_ends_before_a_lease_that_is_lost(bench: Bench) -> None:
    def lose(number: int) -> Verdict:
        bench.works[3].lost = number == 2
        return GONE

    bench.meanwhile = lose
    assert [len(verdicts) for _, verdicts in bench.delete()] == [1, 1, 1, 0]


def test_ends_between_locations_of_an_image_when_its_lease_is_lost() -> None:
    """As when its renewal, beside the thread, tells that another agent has it."""
    bench = Bench(("a", "a"))

    def lose(_: int) -> Verdict:
        bench.works[0].lost = True
        return GONE

    bench.meanwhile = lose
    assert [len(given) for _, given in bench.delete()] == [1]
    assert len(bench.deleted) == 1


def test_ends_before_a_lease_that_is_old(bench: Bench) -> None:
    def age(number: int) -> Verdict:
        if number == 2:
            bench.works[3].asked = replace(bench.works[3].asked, boot=bench.now - 81)
        return GONE

    bench.meanwhile = age
    assert [len(verdicts) for _, verdicts in bench.delete()] == [1, 1, 1, 0]


def test_what_has_no_lease_goes_on_undeleted(bench: Bench) -> None:
    bench.works[0].lost = True
    assert bench.work() == [bench.works[0]]
    assert not bench.deleted
    assert not bench.works[0].gone


def test_ends_when_the_agent_ends(bench: Bench) -> None:
    def stop(number: int) -> Verdict:
        bench.scrubber.workers.stopping = number == 1
        return GONE

    bench.meanwhile = stop
    assert bench.work() == bench.works[:2]
    assert len(bench.deleted) == 2


def test_what_the_backlog_lost_meanwhile_is_left(bench: Bench) -> None:
    """As when a store is paused: its claims are released at once."""

    def release(number: int) -> Verdict:
        if number == 1:
            bench.lane.drain()
        return GONE

    bench.meanwhile = release
    assert len(bench.delete()) == 2


def test_locations_of_an_image_go_one_after_another() -> None:
    bench = Bench(("a", "a", "b"), ("a",))
    assert bench.work() == bench.works
    first, second = bench.works
    assert bench.deleted == [
        *[row.value for row in first.claim.locations[:2]],
        second.claim.locations[0].value,
    ]
    assert first.next_store == "b"
    assert second.next_store is None


def test_a_location_that_stays_holds_back_no_other_of_its_image() -> None:
    bench = Bench(("a", "a"), ("a",))
    bench.meanwhile = lambda number: THROTTLED if number == 0 else GONE
    (first,) = bench.work()  # and with what it is slowed to, each has a turn of its own
    assert (len(first.left), len(first.gone)) == (1, 1)


def test_a_defect_in_the_thread_belongs_to_its_image(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(number: int) -> Verdict:
        if number == 2:
            raise LookupError("no such thing")
        return GONE

    bench.meanwhile = fail
    caplog.set_level(logging.ERROR)
    assert bench.work() == bench.works[:3]
    check_defect(bench, caplog)
    assert len(bench.lane.backlog) == 2


def test_a_defect_in_the_loop_belongs_to_its_image(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Lane, work: Work, *__: object) -> None:
        if work is bench.works[2]:
            raise LookupError("no such thing")

    monkeypatch.setattr(bench.scrubber.lanes, "answered", fail)
    caplog.set_level(logging.ERROR)
    assert bench.work() == bench.works
    check_defect(bench, caplog)
    assert all(work.is_complete for work in bench.works[3:])


def test_an_image_that_no_thread_is_there_for_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(bench.scrubber.workers, "_delete_some", fail)
    (first,) = bench.work()
    assert first is bench.works[0]
    assert first.trouble is not None
    assert not first.targets


def check_defect(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The third image is given up, the two before it are done."""
    third = bench.works[2]
    assert [record.getMessage() for record in caplog.records] == [
        f"Image {third.image_id} cannot be worked on"
    ]
    assert third.trouble is not None
    assert third.trouble[1].outcome is Outcome.UNKNOWN
    assert not third.is_complete
    assert all(work.is_complete for work in bench.works[:2])


@pytest.mark.parametrize("verdict", [MISSING_DIRECTORY, EMPTY_DIRECTORY, MISSING_BELOW])
@pytest.mark.parametrize(("limit", "gone"), [(0, True), (20, False)])
def test_what_an_operator_says_is_gone_is_gone(verdict: Verdict, limit: int, gone: bool) -> None:
    """By a limit of 0; otherwise a directory that is not mounted tells nothing of the data."""
    bench = Bench(("a",))
    bench.lane.missing.limit = limit
    bench.meanwhile = lambda _: verdict
    (work,) = bench.work()
    assert work.is_complete is gone
    assert bool(work.gone) is gone
