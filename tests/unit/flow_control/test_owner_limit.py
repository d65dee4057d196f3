# SPDX-License-Identifier: Apache-2.0
"""The rate limit of each owner."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.flow_control.owner_limit import OwnerLimit

A, B, NOBODY = 1, 2, 0


def test_without_a_rate_every_turn_is_now() -> None:
    limit = OwnerLimit(0)
    assert [limit.turn("i", A, 5) for _ in range(100)] == [5] * 100
    assert all(limit.lets_through(A, 5) for _ in range(100))


def test_turns_of_an_owner_are_spaced() -> None:
    limit = OwnerLimit(2)
    assert [limit.turn("i", A, 10) for _ in range(4)] == [10, 10.5, 11, 11.5]


def test_owners_do_not_wait_for_each_other() -> None:
    limit = OwnerLimit(1)
    for _ in range(100):
        limit.turn("i", A, 0)
        limit.lets_through(A, 0)
    assert limit.turn("i", B, 0) == 0
    assert limit.turn("i", NOBODY, 0) == 0
    assert limit.lets_through(B, 0)
    assert limit.lets_through(NOBODY, 0)


def test_unused_turns_are_not_saved() -> None:
    limit = OwnerLimit(1)
    limit.turn("i", A, 0)
    assert [limit.turn("i", A, 100) for _ in range(3)] == [100, 101, 102]


def test_turns_that_passed_are_not_saved_either() -> None:
    limit = OwnerLimit(2)
    assert [limit.turn("i", A, 0) for _ in range(200)][-1] == 99.5
    assert [limit.lets_through(A, 100) for _ in range(200)].count(True) == 2
    # The others get turns behind those that are left.
    assert limit.turn("i", A, 100) == 101
    assert limit.turn("i", A, 100) == 101.5


def test_no_turn_is_before_what_was_charged_is_paid_off() -> None:
    """Images that are tried again are charged without having had a turn."""
    limit = OwnerLimit(0.1)
    assert limit.lets_through(A, 0)
    assert not limit.lets_through(A, 0)
    assert limit.turn("i", A, 0) == 10


def test_one_that_is_late_does_not_cost_the_next_one_its_turn() -> None:
    limit = OwnerLimit(1)
    turns = [limit.turn("i", A, 0) for _ in range(20)]
    late = [0.0, 0.4, 0.0, 0.49, 0.2]
    assert all(limit.lets_through(A, turn + late[at % 5]) for at, turn in enumerate(turns))


def test_changed_rate_keeps_its_distance_from_the_last_turn() -> None:
    limit = OwnerLimit(1)
    limit.turn("i", A, 0)
    limit.change(10, 0.05)
    assert [limit.turn("i", A, 0.05) for _ in range(3)] == pytest.approx([0.1, 0.2, 0.3])
    limit.change(1, 10.0)
    assert limit.turn("i", A, 10.0) == 10.0


def test_changed_rate_does_not_wait_for_turns_to_come() -> None:
    limit = OwnerLimit(0.1)
    for _ in range(100):
        limit.turn("i", A, 0)
    limit.change(1, 25.0)
    assert limit.turn("i", A, 25.0) == 26.0  # the turn of 20 s is one of those that came


def test_changed_rate_holds_for_what_was_charged() -> None:
    limit = OwnerLimit(0.1)
    assert limit.lets_through(A, 100)
    limit.change(1, 100.2)
    assert not limit.lets_through(A, 100.2)
    assert limit.lets_through(A, 101)
    limit.change(0, 101)
    limit.change(1, 101)
    assert limit.lets_through(A, 101)


def test_changed_rate_gives_back_what_the_old_one_delayed() -> None:
    limit = OwnerLimit(1)
    for image_id in "ijkl":
        limit.turn(image_id, A, 0)
    limit.turn("m", B, 0)
    limit.started("k")
    assert limit.change(1, 0) == set()
    assert limit.change(2, 0) == {"j", "l"}
    assert limit.change(0, 0) == set()


@given(
    st.floats(0.01, 100),
    st.lists(st.tuples(st.sampled_from([A, B, NOBODY]), st.floats(0, 10)), max_size=100),
)
def test_rate_of_an_owner_is_never_exceeded(rate: float, asks: list[tuple[int, float]]) -> None:
    limit = OwnerLimit(rate)
    now = 0.0
    turns: dict[int, list[float]] = {}
    for owner, seconds in asks:
        now += seconds
        turn = limit.turn("i", owner, now)
        assert turn >= now
        turns.setdefault(owner, []).append(turn)
    for times in turns.values():
        for before, after in pairwise(times):
            assert after - before >= 1 / rate - 1e-6


@given(st.floats(0.01, 100), st.lists(st.floats(0, 3), min_size=1, max_size=100))
def test_what_is_let_through_is_at_most_half_a_second_too_early(
    rate: float, pauses: list[float]
) -> None:
    limit = OwnerLimit(rate)
    now = 0.0
    times: list[float] = []
    for pause in pauses:
        now += pause
        if limit.lets_through(A, now):
            times.append(now)
        else:
            assert limit.turn("i", A, now) > now
    for first in range(len(times)):
        for last in range(first + 1, len(times)):
            assert times[last] - times[first] >= (last - first) / rate - 0.5 - 1e-6
