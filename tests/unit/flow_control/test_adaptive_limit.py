# SPDX-License-Identifier: Apache-2.0
"""The adaptive limit, second by second."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.flow_control.adaptive_limit import Pace

concurrencies = st.integers(1, 4096)
rates = st.just(0.0) | st.floats(0.001, 10_000)


def answer(pace: Pace, since: float, seconds: float, per_second: float) -> float:
    """Record good answers for some time; returns the time after the last one."""
    count = int(seconds * per_second)
    for number in range(1, count + 1):
        pace.answered(since + number / per_second)
    return since + seconds


def test_store_that_answers_gets_the_allowed_limits() -> None:
    pace = Pace(16, 5.0)
    answer(pace, 0, 100, 50)
    assert (pace.concurrent, pace.rate) == (16, 5)
    assert not pace.is_slowed
    assert pace.per_second == pytest.approx(50, rel=0.05)


def test_first_rate_estimate_comes_early() -> None:
    pace = Pace(16)
    answer(pace, 0, 0.15, 500)
    assert pace.per_second == pytest.approx(500, rel=0.05)
    answer(pace, 0.15, 0.5, 100)
    assert pace.per_second == pytest.approx(500, rel=0.05)


def test_overload_halves_both_limits() -> None:
    pace = Pace(16, 40.0)
    assert pace.troubled(10)
    assert (pace.concurrent, pace.rate) == (8, 20)
    assert pace.is_slowed


def test_store_without_a_rate_gets_half_of_its_measured_rate() -> None:
    pace = Pace(16)
    now = answer(pace, 0, 5, 100)
    assert pace.troubled(now)
    assert pace.rate == pytest.approx(50, rel=0.05)


def test_answers_of_the_current_second_count() -> None:
    """A first second spent loading the driver is no measure of the store."""
    pace = Pace(16)
    pace.answered(0)
    pace.answered(1.5)
    now = answer(pace, 1.5, 0.9, 100)
    assert pace.troubled(now)
    assert pace.rate >= 40


def test_overload_before_any_answer_derives_the_rate_from_concurrency() -> None:
    pace = Pace(16)
    assert pace.troubled(0)
    assert (pace.concurrent, pace.rate) == (8, 4)


def test_overload_of_requests_in_flight_counts_once() -> None:
    pace = Pace(16, 40.0)
    assert [pace.troubled(10 + number / 16) for number in range(16)] == [True] + [False] * 15
    assert (pace.concurrent, pace.rate) == (8, 20)
    assert pace.troubled(11)
    assert (pace.concurrent, pace.rate) == (4, 10)


def test_limits_never_reach_zero() -> None:
    pace = Pace(16, 40.0)
    for second in range(100):
        pace.troubled(second)
    assert (pace.concurrent, pace.rate) == (1, 0.1)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.15])
def test_low_rate_is_not_raised_by_overload(rate: float) -> None:
    pace = Pace(1, rate)
    for second in range(10):
        pace.troubled(second)
        assert pace.rate == min(rate, 0.1)


def test_limits_grow_stepwise() -> None:
    pace = Pace(16, 40.0)
    pace.troubled(0)
    steps = [(8, 20.0)]
    for second in range(1, 60):
        answer(pace, second - 1, 1, 20)
        steps.append((pace.concurrent, pace.rate))
    assert steps[-1] == (16, 40)
    for (concurrent, rate), (next_concurrent, next_rate) in pairwise(steps):
        assert concurrent <= next_concurrent <= concurrent + 1
        assert rate <= next_rate <= rate * 1.051
    assert 12 <= steps.index((16, 40)) <= 20


def test_limits_do_not_grow_within_a_second_of_a_cut() -> None:
    pace = Pace(16, 40.0)
    answer(pace, 0, 10, 30)
    pace.troubled(10)
    pace.answered(10.9)
    assert (pace.concurrent, pace.rate) == (8, 20)


def test_unlimited_store_becomes_unlimited_again() -> None:
    pace = Pace(16)
    now = answer(pace, 0, 5, 100)
    pace.troubled(now)
    highest = 0.0
    while pace.is_slowed:
        now = answer(pace, now, 1, 20)
        highest = max(highest, pace.rate)
        assert now < 120
    assert 350 < highest <= 420
    assert (pace.concurrent, pace.rate) == (16, 0)


class TestAllow:
    def test_full_pace_follows_the_change(self) -> None:
        pace = Pace(16, 40.0)
        pace.allow(4, 0)
        assert (pace.concurrent, pace.rate) == (4, 0)
        pace.allow(64, 100)
        assert (pace.concurrent, pace.rate) == (64, 100)

    def test_slowed_store_keeps_its_pace_below_a_raised_limit(self) -> None:
        pace = Pace(16, 40.0)
        pace.troubled(0)
        pace.allow(64, 400)
        assert (pace.concurrent, pace.rate) == (8, 20)

    def test_slowed_store_follows_a_lowered_limit(self) -> None:
        pace = Pace(16, 40.0)
        pace.troubled(0)
        pace.allow(2, 5)
        assert (pace.concurrent, pace.rate) == (2, 5)
        assert not pace.is_slowed

    def test_slowed_unlimited_store_follows_a_new_limit(self) -> None:
        pace = Pace(16)
        pace.troubled(0)
        pace.allow(16, 3)
        assert (pace.concurrent, pace.rate) == (8, 3)


#: What may happen, each after so many seconds.
events = st.lists(
    st.tuples(
        st.floats(0, 30),
        st.one_of(st.sampled_from(["answered", "troubled"]), st.tuples(concurrencies, rates)),
    ),
    max_size=60,
)


@given(concurrencies, rates, events)
def test_limits_never_exceed_the_allowed_and_recover(
    concurrent: int, rate: float, happens: list[tuple[float, str | tuple[int, float]]]
) -> None:
    pace = Pace(concurrent, rate)
    now = 0.0

    def check() -> None:
        assert 1 <= pace.concurrent <= pace.most_concurrent
        if pace.most_rate:
            assert 0 < pace.rate <= pace.most_rate
        assert pace.rate >= 0

    for seconds, event in happens:
        now += seconds
        if event == "answered":
            pace.answered(now)
        elif event == "troubled":
            pace.troubled(now)
        else:
            assert isinstance(event, tuple)
            pace.allow(*event)
            assert (pace.most_concurrent, pace.most_rate) == event
        check()
    for _ in range(5000):
        if not pace.is_slowed:
            break
        now += 1.0
        pace.answered(now)
        check()
    assert (pace.concurrent, pace.rate) == (pace.most_concurrent, pace.most_rate)
