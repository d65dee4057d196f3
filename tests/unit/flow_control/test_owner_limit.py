# SPDX-License-Identifier: Apache-2.0
"""The rate limit of each owner."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.flow_control.owner_limit import OwnerLimit


def test_without_a_rate_every_turn_is_now() -> None:
    limit = OwnerLimit(0)
    assert [limit.turn("i", "a", 5) for _ in range(100)] == [5] * 100


def test_turns_of_an_owner_are_spaced() -> None:
    limit = OwnerLimit(2)
    assert [limit.turn("i", "a", 10) for _ in range(4)] == [10, 10.5, 11, 11.5]


def test_owners_do_not_wait_for_each_other() -> None:
    limit = OwnerLimit(1)
    for _ in range(100):
        limit.turn("i", "a", 0)
    assert limit.turn("i", "b", 0) == 0
    assert limit.turn("i", None, 0) == 0


def test_unused_turns_are_not_saved() -> None:
    limit = OwnerLimit(1)
    limit.turn("i", "a", 0)
    assert [limit.turn("i", "a", 100) for _ in range(3)] == [100, 101, 102]


def test_changed_rate_keeps_its_distance_from_the_last_turn() -> None:
    limit = OwnerLimit(1)
    limit.turn("i", "a", 0)
    limit.change(10, 0.05)
    assert [limit.turn("i", "a", 0.05) for _ in range(3)] == pytest.approx([0.1, 0.2, 0.3])
    limit.change(1, 10.0)
    assert limit.turn("i", "a", 10.0) == 10.0


def test_changed_rate_does_not_wait_for_turns_to_come() -> None:
    limit = OwnerLimit(0.1)
    for _ in range(100):
        limit.turn("i", "a", 0)
    limit.change(1, 25.0)
    assert limit.turn("i", "a", 25.0) == 26.0  # the turn of 20 s is one of those that came


def test_changed_rate_gives_back_what_the_old_one_delayed() -> None:
    limit = OwnerLimit(1)
    for image_id in "ijkl":
        limit.turn(image_id, "a", 0)
    limit.turn("m", "b", 0)
    limit.started("k")
    assert limit.change(1, 0) == set()
    assert limit.change(2, 0) == {"j", "l"}
    assert limit.change(0, 0) == set()


def test_owners_without_pending_turns_are_forgotten() -> None:
    limit = OwnerLimit(1)
    for number in range(20_000):
        limit.turn("i", str(number), float(number))
    assert len(limit._next) <= 10_001
    # But not one whose turn is still to come.
    limit.turn("i", "19999", 19_999)
    assert limit.turn("i", "19999", 19_999) == 20_001


def test_forgetting_owners_is_amortized() -> None:
    limit = OwnerLimit(0.001)
    for number in range(100_000):  # minutes of searching, if each owner made one
        limit.turn("i", str(number), 0.0)
        limit.turn("i", str(number), 0.0)
    assert len(limit._next) == 100_000


@given(
    st.floats(0.01, 100),
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), max_size=100),
)
def test_rate_of_an_owner_is_never_exceeded(rate: float, asks: list[tuple[str, float]]) -> None:
    limit = OwnerLimit(rate)
    now = 0.0
    turns: dict[str, list[float]] = {}
    for owner, seconds in asks:
        now += seconds
        turn = limit.turn("i", owner, now)
        assert turn >= now
        turns.setdefault(owner, []).append(turn)
    for times in turns.values():
        for before, after in pairwise(times):
            assert after - before >= 1 / rate - 1e-6
