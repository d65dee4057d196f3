# SPDX-License-Identifier: Apache-2.0
"""Clocks: how long this process was away, and what the database's clock says."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.clock import Clock, DatabaseClock, Moment, epoch

START = 1_800_000_000.0
EPOCH = datetime(1970, 1, 1)


class Times:
    """Two clocks that a test sets."""

    def __init__(self, boot: float = 1000.0, wall: float = START) -> None:
        self.boot = boot
        self.wall = wall
        self.clock = Clock(lambda: self.boot, lambda: self.wall)

    def pass_by(self, seconds: float) -> None:
        self.boot += seconds
        self.wall += seconds


def reading(seconds: float) -> datetime:
    """A time of the database, as it comes from there."""
    return EPOCH + timedelta(seconds=seconds)


def test_a_clock_starts_on_the_clocks_of_this_host() -> None:
    clock = Clock()
    before = clock.moment()
    assert abs(clock.wall() - datetime.now(UTC).timestamp()) < 60
    assert clock.since(before) >= 0


@pytest.mark.parametrize(
    ("boot", "wall", "passed"),
    [
        pytest.param(30.0, 30.0, 30.0, id="an ordinary half minute"),
        pytest.param(2.0, 600.0, 600.0, id="a machine that was frozen"),
        pytest.param(600.0, 2.0, 600.0, id="a wall clock that was set back"),
        pytest.param(5.0, -3600.0, 5.0, id="a wall clock that was set back far"),
    ],
)
def test_the_clock_that_says_more_is_believed(boot: float, wall: float, passed: float) -> None:
    times = Times()
    before = times.clock.moment()
    times.boot += boot
    times.wall += wall
    assert times.clock.since(before) == passed


def test_a_moment_holds_both_clocks() -> None:
    assert Times(7.0, 9.0).clock.moment() == Moment(7.0, 9.0)


def test_epoch_takes_a_naive_time_for_utc() -> None:
    assert epoch(datetime(2026, 11, 23, 12, 0, 0, 250_000)) == 1_795_435_200.25


def test_before_any_reading_the_database_is_taken_to_agree_with_this_host() -> None:
    times = Times()
    database = DatabaseClock(times.clock)
    times.pass_by(10)
    assert database.now() == START + 10
    assert database.skew_seconds == 0


def test_a_wall_clock_that_is_set_does_not_move_the_estimate() -> None:
    times = Times()
    database = DatabaseClock(times.clock)
    times.wall -= 3600
    assert database.now() == START
    assert database.skew_seconds == -3600


def test_an_estimate_moves_only_as_far_as_a_reading_demands() -> None:
    times = Times()
    database = DatabaseClock(times.clock)
    asked = times.clock.moment()
    times.pass_by(2)
    # The database said 10 s more than this host at some time in these two seconds.
    database.observe(reading(START + 11), asked)
    assert database.now() == START + 11
    assert database.skew_seconds == -9
    # Now between 10.5 and 12.5 ahead, which 9 is not, and then between 8 and 11, which 10.5 is.
    asked = times.clock.moment()
    times.pass_by(2)
    database.observe(reading(START + 14.5), asked)
    assert database.skew_seconds == -10.5
    asked = times.clock.moment()
    times.pass_by(3)
    database.observe(reading(START + 15), asked)
    assert database.skew_seconds == -10.5


def seconds(low: float, high: float) -> st.SearchStrategy[float]:
    """Such that floats and microseconds hold them exactly, and no test needs a tolerance."""
    return st.integers(int(low * 64), int(high * 64)).map(lambda units: units / 64)


@given(
    seconds(-1e5, 1e5),
    st.lists(st.tuples(seconds(0, 1000), seconds(0, 30), seconds(0, 30)), min_size=1, max_size=20),
)
def test_the_estimate_keeps_within_the_bounds_of_all_readings(
    ahead: float, observations: list[tuple[float, float, float]]
) -> None:
    times = Times()
    database = DatabaseClock(times.clock)
    lowest, highest = -float("inf"), float("inf")  # of database minus boot
    for pause, going, coming in observations:
        times.pass_by(pause)
        asked = times.clock.moment()
        times.pass_by(going)
        value = reading(times.wall + ahead)
        times.pass_by(coming)
        database.observe(value, asked)
        lowest = max(lowest, epoch(value) - times.boot)
        highest = min(highest, epoch(value) - asked.boot)
        assert lowest <= database.now() - times.boot <= highest
        # So the error is at most the shortest round trip so far.
        assert abs(database.now() - (times.wall + ahead)) <= highest - lowest
