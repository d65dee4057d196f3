# SPDX-License-Identifier: Apache-2.0
"""The rate limit of each owner."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.flow_control.owner_limit import OwnerPace


def test_without_a_rate_every_turn_is_now() -> None:
    pace = OwnerPace(0)
    assert [pace.turn("a", 5) for _ in range(100)] == [5] * 100


def test_turns_of_an_owner_are_spaced() -> None:
    pace = OwnerPace(2)
    assert [pace.turn("a", 10) for _ in range(4)] == [10, 10.5, 11, 11.5]


def test_owners_do_not_wait_for_each_other() -> None:
    pace = OwnerPace(1)
    for _ in range(100):
        pace.turn("a", 0)
    assert pace.turn("b", 0) == 0
    assert pace.turn(None, 0) == 0


def test_unused_turns_are_not_saved() -> None:
    pace = OwnerPace(1)
    pace.turn("a", 0)
    assert [pace.turn("a", 100) for _ in range(3)] == [100, 101, 102]


def test_raised_rate_applies_from_the_next_turn() -> None:
    pace = OwnerPace(1)
    pace.turn("a", 0)
    pace.rate = 10
    assert [pace.turn("a", 0) for _ in range(3)] == pytest.approx([1, 1.1, 1.2])


def test_owners_without_pending_turns_are_forgotten() -> None:
    pace = OwnerPace(1)
    for number in range(20_000):
        pace.turn(str(number), float(number))
    assert len(pace._next) <= 10_001
    # But not one whose turn is still to come.
    pace.turn("19999", 19_999)
    assert pace.turn("19999", 19_999) == 20_001


def test_forgetting_owners_is_amortized() -> None:
    pace = OwnerPace(0.001)
    for number in range(100_000):  # minutes of searching, if each owner made one
        pace.turn(str(number), 0.0)
        pace.turn(str(number), 0.0)
    assert len(pace._next) == 100_000


@given(
    st.floats(0.01, 100),
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), max_size=100),
)
def test_rate_of_an_owner_is_never_exceeded(rate: float, asks: list[tuple[str, float]]) -> None:
    pace = OwnerPace(rate)
    now = 0.0
    turns: dict[str, list[float]] = {}
    for owner, seconds in asks:
        now += seconds
        turn = pace.turn(owner, now)
        assert turn >= now
        turns.setdefault(owner, []).append(turn)
    for times in turns.values():
        for before, after in pairwise(times):
            assert after - before >= 1 / rate - 1e-6
