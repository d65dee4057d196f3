# SPDX-License-Identifier: Apache-2.0
"""The sweep: what it puts into the queue, and what it leaves there as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import anyio
import pytest

from evscrub.config.settings import SweepSettings
from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.domain.decisions import Policy
from evscrub.intake.sweep import HEAD_START_SECONDS, Sweep
from evscrub.queueing.delay_queue import DelayQueue
from evscrub.registry.calls import RegistryCalls
from evscrub.registry.pages import Found, Window

NOW = 1_800_000_000.0
EPOCH = datetime.fromisoformat("1970-01-01")
DUE, LATER = "due", "later"


class FakePages:
    """Gives pages as the registry would."""

    def __init__(self, *pages: list[Found]) -> None:
        self.pages = pages
        self.windows: list[Window] = []

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=NOW)

    def read(self, window: Window) -> Iterator[list[Found]]:
        self.windows.append(window)
        yield from self.pages


def found(image_id: str, deleted_ago: float) -> Found:
    return Found(image_id, "owner", EPOCH + timedelta(seconds=NOW - deleted_ago))


def sweep_of(queue: DelayQueue, pages: FakePages, **chance: Any) -> Sweep:
    clock = Clock(boot=lambda: 5.0, wall=lambda: NOW)
    settings = SweepSettings(Policy(timedelta(seconds=100), timedelta(seconds=60)), 60, 3600)
    calls = RegistryCalls(clock, SimpleNamespace(now=pages.now, dispose=lambda: None))
    database_clock = DatabaseClock(clock)
    return Sweep(queue, pages, calls, clock, database_clock, settings, lambda: None, **chance)  # type: ignore[arg-type] # fake pages


def test_reads_on_after_an_empty_page() -> None:
    queue = DelayQueue(10)
    pages = FakePages([], [found(DUE, 200)], [], [found(LATER, 10)])
    report = anyio.run(sweep_of(queue, pages).once)
    assert (report.found, report.added) == (2, 2)


def test_what_is_due_comes_at_once_and_the_rest_after_a_head_start() -> None:
    queue = DelayQueue(10)
    anyio.run(sweep_of(queue, FakePages([found(DUE, 200), found(LATER, 10)])).once)
    queue.advance(NOW)
    assert [taken.image_id for taken in queue.take(None, 5)] == [DUE]
    queue.advance(NOW + 90 + HEAD_START_SECONDS - 0.01)
    assert not queue.has_ready(None)
    queue.advance(NOW + 90 + HEAD_START_SECONDS)
    assert [taken.image_id for taken in queue.take(None, 5)] == [LATER]


def test_does_not_hasten_what_waits_for_its_next_try() -> None:
    queue = DelayQueue(10)
    queue.add(DUE, NOW + 500)
    report = anyio.run(sweep_of(queue, FakePages([found(DUE, 200)])).once)
    assert report.added == 0
    queue.advance(NOW + 499)
    assert not queue.has_ready(None)


def test_only_the_first_sweep_goes_through_everything() -> None:
    pages = FakePages([])
    sweep = sweep_of(DelayQueue(10), pages)
    anyio.run(sweep.once)
    assert pages.windows[0].changed_since is None


def test_the_next_sweep_looks_back_beyond_the_last_one() -> None:
    """Clocks of Glance's hosts differ, and claims expire after their image last changed."""
    pages = FakePages([])
    sweep = sweep_of(DelayQueue(10), pages)
    anyio.run(sweep.once)
    anyio.run(sweep.once)
    since = pages.windows[1].changed_since
    assert since is not None
    assert since <= pages.now() - timedelta(seconds=300 + 2 * 60)


def test_what_a_full_queue_dropped_brings_a_full_sweep() -> None:
    queue = DelayQueue(1)
    pages = FakePages([found(DUE, 200), found(LATER, -1000)])
    sweep = sweep_of(queue, pages)
    anyio.run(sweep.once)
    assert queue.dropped_due is not None


@pytest.mark.parametrize("during", [False, True])
def test_changed_options_bring_a_full_sweep(during: bool) -> None:
    pages = FakePages([])
    sweep = sweep_of(DelayQueue(10), pages)
    settings = sweep._settings

    def change() -> None:
        sweep.change(replace(settings, full_interval=600))

    if during:
        sweep._on_full = change
    anyio.run(sweep.once)
    sweep._on_full = lambda: None
    sweep.change(sweep._settings)  # this changes nothing
    if not during:
        change()
    anyio.run(sweep.once)
    anyio.run(sweep.once)
    assert [window.changed_since is None for window in pages.windows] == [True, True, False]


def test_chance_is_what_is_passed_in() -> None:
    """Agents begin in different places, and none of their full sweeps comes late."""
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    pages = FakePages([])
    sweep = sweep_of(DelayQueue(10), pages, uniform=uniform, new_id=lambda: UUID(int=7))
    anyio.run(sweep.once)
    assert pages.windows[0].start_at == str(UUID(int=7))
    assert asked == [(0.9, 1.0)]
    assert sweep._full_due == pytest.approx(5.0 + 0.9 * 3600)


def test_statistics_tell_of_finished_sweeps() -> None:
    sweep = sweep_of(DelayQueue(10), FakePages([found(DUE, 200)]))
    before = sweep.statistics()
    assert (before.count, before.last, before.last_at) == (0, None, None)
    report = anyio.run(sweep.once)
    assert before.count == 0
    after = sweep.statistics()
    assert (after.count, after.added, after.last, after.last_at) == (1, 1, report, NOW)
    assert not after.failing
