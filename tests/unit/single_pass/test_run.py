# SPDX-License-Identifier: Apache-2.0
"""How often a pass reads the registry."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from evscrub.single_pass import run
from evscrub.single_pass.account import Account
from evscrub.single_pass.run import SinglePass
from tests.unit.agent_parts import FakeClock


class Pass(SinglePass):
    """A pass whose readings and scrubber are given.

    :param found: images to try and claimed images that each reading finds; the last one repeats.
    :param progress: whether images are scrubbed after each reading; the last one repeats.
    """

    def __init__(self, found: list[tuple[int, int]], progress: list[bool]) -> None:
        self._clock = self.time = FakeClock()
        self._wait_seconds = 60.0
        self.try_seconds = 0.0
        self._readings = 0
        self.found, self.progresses = found, progress
        self.read_at: list[float] = []

    async def _read(self, *, queue: bool) -> run._Reading:
        self.read_at.append(self.time.time)
        self.time.time += 0.5
        trying, claimed = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        return run._Reading(Account(), trying if queue else 0, claimed)

    def _look_for_progress(self) -> Any:
        return None

    async def _until_tried(self) -> None:
        self.time.time += self.try_seconds
        if self.progresses.pop(0) if len(self.progresses) > 1 else self.progresses[0]:
            self._progressed_at = self.time.time


def read_by(monkeypatch: pytest.MonkeyPatch, one: Pass) -> list[float]:
    """Return the seconds from each reading of a pass to the next."""

    async def sleep(seconds: float) -> None:
        one.time.time += seconds

    monkeypatch.setattr(anyio, "sleep", sleep)
    anyio.run(one._scrub)
    return [after - before for before, after in zip(one.read_at, one.read_at[1:], strict=False)]


def test_reads_again_at_once_while_images_are_scrubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_by(monkeypatch, Pass([(9, 0)] * 5 + [(0, 0)], [True])) == [0.5] * 5


def test_images_that_all_fail_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_by(monkeypatch, Pass([(9, 0), (0, 0)], [False])) == [0.5]


def test_claims_of_others_are_looked_at_with_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_by(monkeypatch, Pass([(0, 9), (0, 9), (0, 0)], [False])) == [3.0, 3.0]


def test_images_that_stay_due_are_tried_with_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As orphans do while Glance imports into their images."""
    steps = read_by(monkeypatch, Pass([(1, 0)], [False]))
    assert steps[0] == 0.5
    assert set(steps[1:]) == {3.0}
    assert 60 <= sum(steps) < 64


@pytest.mark.parametrize(("found", "shortest"), [((1, 0), 10.0), ((0, 1), 0.0)])
def test_images_are_tried_for_a_while_though_nobody_waits(
    monkeypatch: pytest.MonkeyPatch, found: tuple[int, int], shortest: float
) -> None:
    one = Pass([found], [False])
    one._wait_seconds = 0.0
    assert shortest <= sum(read_by(monkeypatch, one)) < shortest + 4


def test_a_pause_is_as_long_as_the_reading_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as the tries after it."""
    one = Pass([(1, 0)], [False])
    one.try_seconds = 10.0
    assert read_by(monkeypatch, one)[:3] == [10.5, 13.0, 13.0]


def test_progress_during_a_pause_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Pass([(1, 0)], [False])
    began = one.time.time

    def look() -> None:
        if one.time.time < began + 30:
            one._progressed_at = one.time.time

    monkeypatch.setattr(one, "_look_for_progress", look)
    assert 85 <= sum(read_by(monkeypatch, one)) < 94
