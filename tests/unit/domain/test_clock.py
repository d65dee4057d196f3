# SPDX-License-Identifier: Apache-2.0
"""Clocks: how long this process was away, and what the database's clock says."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.domain.clock import BOUND_SECONDS, Clock, DatabaseClock, Moment, epoch

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
def test_the_greater_of_both_clocks_is_used(boot: float, wall: float, passed: float) -> None:
    times = Times()
    before = times.clock.moment()
    times.boot += boot
    times.wall += wall
    assert times.clock.since(before) == passed


def test_a_moment_holds_both_clocks() -> None:
    assert Times(7.0, 9.0).clock.moment() == Moment(7.0, 9.0)


def test_epoch_reads_naive_times_as_utc() -> None:
    assert epoch(datetime(2026, 11, 23, 12, 0, 0, 250_000)) == 1_795_435_200.25


def test_initial_estimate_is_this_hosts_clock() -> None:
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


def test_estimate_moves_no_further_than_needed() -> None:
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
        assert database.observe(value, asked) == epoch(value)
        lowest = max(lowest, epoch(value) - times.boot)
        highest = min(highest, epoch(value) - asked.boot)
        assert lowest <= database.now() - times.boot <= highest
        # So the error is at most the shortest round trip so far.
        assert abs(database.now() - (times.wall + ahead)) <= highest - lowest


class Nodes:
    """Nodes whose clocks are off, and an agent's host that may be too.

    :param offs: how far each node's clock is ahead of the true time, seconds.
    :param several: whether the agent knows that there are several.
    """

    def __init__(self, *offs: float, several: bool = True, wall_off: float = 0) -> None:
        self.offs = offs
        self.times = Times(wall=START + wall_off)
        self.true = START
        self.clock = DatabaseClock(self.times.clock, several_nodes=several)

    def pass_by(self, seconds: float) -> None:
        self.true += seconds
        self.times.pass_by(seconds)

    def ask(self, node: int = 0, took: float = 0.05) -> bool:
        """Ask a node for its time; returns whether the agent may act upon it."""
        asked = self.clock.moment()
        self.pass_by(took)
        value = reading(self.true + self.offs[node])
        agrees = self.clock.agrees(value, asked)
        read_at = self.clock.observe(value, asked)
        if agrees:
            assert read_at == epoch(value)
        assert self.clock.now() - took <= read_at <= self.clock.now()
        return agrees

    def ask_for(self, seconds: float, node: int = 0) -> list[bool]:
        """Ask a node once a second."""
        answers = []
        for _ in range(int(seconds)):
            self.pass_by(0.95)
            answers.append(self.ask(node))
        return answers


@pytest.mark.parametrize("off", [15.0, -15.0, 2.5])
def test_wrong_node_is_never_used(off: float) -> None:
    nodes = Nodes(0, off)
    assert all(nodes.ask_for(60))
    assert not any(nodes.ask_for(7200, node=1))
    assert nodes.clock.dispute_seconds == pytest.approx(off, abs=0.2)
    assert nodes.clock.now() == pytest.approx(nodes.true, abs=0.1)
    assert nodes.ask(0)
    assert nodes.clock.dispute_seconds is None


def test_wrong_first_node_is_not_used() -> None:
    nodes = Nodes(15, 0)
    assert not any(nodes.ask_for(600, node=0))
    assert nodes.ask(1)


def test_alternating_nodes_are_distinguished() -> None:
    nodes = Nodes(0, 15)
    for _ in range(100):
        nodes.pass_by(1)
        assert nodes.ask(0)
        assert not nodes.ask(1)


def test_first_reading_of_a_single_node_is_adopted() -> None:
    nodes = Nodes(0, several=False, wall_off=60)
    nodes.ask()
    assert all(nodes.ask_for(60))


@pytest.mark.parametrize("step", [3600.0, -3600.0, 15.0, -2.0])
@pytest.mark.parametrize("several", [True, False])
def test_step_of_the_wall_clock_rejects_no_reading(step: float, several: bool) -> None:
    nodes = Nodes(0, several=several)
    nodes.ask()
    nodes.times.wall += step
    assert all(nodes.ask_for(60))


@pytest.mark.parametrize("step", [15.0, -15.0])
def test_corrected_database_clock_is_adopted(step: float) -> None:
    nodes = Nodes(-step, 0, several=False)
    nodes.ask(0)
    answers = nodes.ask_for(15, node=1)
    assert not any(answers[:9])
    assert answers[-1]


def test_corrected_host_clock_ends_the_dispute() -> None:
    nodes = Nodes(0, wall_off=-60)
    assert not any(nodes.ask_for(60))
    nodes.times.wall += 60
    assert nodes.ask_for(2)[-1]


def test_resumed_machine_recovers_when_its_clock_is_set() -> None:
    nodes = Nodes(0)
    nodes.ask()
    nodes.true += 600  # and no clock of this host counted it
    assert not any(nodes.ask_for(30))
    nodes.times.wall += 600
    assert nodes.ask_for(15)[-1]


_STEPS = st.lists(
    st.tuples(st.integers(0, 2), seconds(0, 100), seconds(0, 1)), min_size=1, max_size=60
)


@given(st.tuples(seconds(-60, 60), seconds(-60, 60)), seconds(-1, 1), _STEPS)
def test_no_far_reading_agrees_while_the_host_clock_is_right(
    offs: tuple[float, float], wall_off: float, steps: list[tuple[int, float, float]]
) -> None:
    nodes = Nodes(0, *offs, wall_off=wall_off)
    for node, pause, took in steps:
        nodes.pass_by(pause)
        agrees = nodes.ask(node, took)
        # Small steps from node to node carry the estimate no further than the wall clock allows.
        if agrees:
            assert abs(nodes.offs[node]) <= 3 * BOUND_SECONDS + 2
    nodes.pass_by(1)
    assert nodes.ask_for(15)[-1] or abs(nodes.clock.dispute_seconds or 0) <= 3 * BOUND_SECONDS
