# SPDX-License-Identifier: Apache-2.0
"""The circuit breaker."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.flow_control.circuit_breaker import FAILURES, REFUSALS, Breaker, State


def middle(low: float, high: float) -> float:
    return (low + high) / 2


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(middle)


def trip(breaker: Breaker, now: float) -> None:
    """Record failures of different owners until the breaker opens."""
    assert not any(breaker.failed(now, f"o{n}", "backend") for n in range(FAILURES - 1))
    assert breaker.failed(now, "last", "backend")


class TestFailures:
    def test_lets_everything_through_at_first(self, breaker: Breaker) -> None:
        assert breaker.lets_through(0, 1000) is None

    def test_opens_after_failures_in_a_row(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        assert breaker.state is State.OPEN
        assert breaker.reason == "backend"
        assert breaker.lets_through(0.09, 0) == 0

    def test_one_owner_does_not_open_it(self, breaker: Breaker) -> None:
        assert not any(breaker.failed(0, "o", "backend") for _ in range(1000))
        assert breaker.state is State.CLOSED

    def test_two_owners_are_enough(self, breaker: Breaker) -> None:
        assert not any(breaker.failed(0, "a", "backend") for _ in range(100))
        assert [breaker.failed(0, "b", "backend") for _ in range(2)] == [False, True]

    def test_one_owner_opens_an_owners_breaker(self) -> None:
        breaker = Breaker(middle, of_one_owner=True)
        assert [breaker.failed(0, "o", "x") for _ in range(FAILURES)][-1]

    def test_success_between_failures_keeps_it_closed(self, breaker: Breaker) -> None:
        for _ in range(10 * FAILURES):
            assert not any(breaker.failed(0, f"o{n}", "x") for n in range(FAILURES - 1))
            assert not breaker.answered()
        assert breaker.state is State.CLOSED

    def test_at_once_opens_it_with_one_failure(self, breaker: Breaker) -> None:
        assert breaker.failed(0, "o", "no_write_access", at_once=True)
        assert breaker.lets_through(0.05, 0) == 0

    def test_probes_with_one_request(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        for _ in range(2):  # a question changes nothing
            assert breaker.lets_through(1, 0) == 1
            assert breaker.state_at(1) is State.HALF_OPEN
            assert breaker.lets_through(1, 1) == 0
        assert breaker.state_at(0.05) is State.OPEN
        assert breaker.lets_through(0.05, 0) == 0

    def test_failed_probe_reopens_it(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        breaker.lets_through(1, 0)
        assert not breaker.failed(1, "o0", "timeout")
        assert breaker.state is State.OPEN

    def test_successful_probe_closes_it(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        breaker.lets_through(5, 0)
        assert breaker.answered()
        assert breaker.lets_through(5, 50) is None
        assert breaker.reason == ""

    def test_pauses_grow_up_to_a_minute(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        now, pauses = 0.0, []
        for _ in range(40):
            pauses.append(breaker.opened_until - now)
            now = breaker.opened_until
            assert breaker.lets_through(now, 0) == 1
            assert not breaker.failed(now, "o", "timeout")
        assert pauses[0] == pytest.approx(0.1)
        assert all(
            after > before or after == pytest.approx(60) for before, after in pairwise(pauses)
        )
        assert pauses[30:] == pytest.approx([60] * 10)
        assert sum(pauses[:14]) < 13
        assert breaker.reason == "timeout"

    def test_pauses_restart_after_a_success(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        for _ in range(20):
            breaker.lets_through(breaker.opened_until, 0)
            breaker.failed(breaker.opened_until, "o", "backend")
        breaker.lets_through(1000, 0)
        breaker.answered()
        trip(breaker, 2000)
        assert breaker.opened_until == pytest.approx(2000.1)

    def test_failures_while_open_do_not_prolong_the_pause(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        for _ in range(100):
            assert not breaker.failed(0.05, "o", "backend")
        assert breaker.opened_until == pytest.approx(0.1)

    def test_pauses_have_jitter(self) -> None:
        drawn: list[tuple[float, float]] = []

        def highest(low: float, high: float) -> float:
            drawn.append((low, high))
            return high

        breaker = Breaker(highest)
        trip(breaker, 0)
        assert drawn == [(0.75, 1.25)]
        assert breaker.opened_until == pytest.approx(0.125)


class TestRefusals:
    def refuse(self, breaker: Breaker, times: int = REFUSALS) -> list[bool]:
        return [breaker.refused(f"o{n}", "refused", first=True) for n in range(times)]

    def test_many_in_a_row_let_one_through_at_a_time(self, breaker: Breaker) -> None:
        assert self.refuse(breaker) == [False] * (REFUSALS - 1) + [True]
        assert breaker.lets_through(0, 0) == 1
        assert breaker.lets_through(0, 1) == 0
        assert not breaker.refused("x", "refused", first=True)
        assert breaker.lets_through(0, 0) == 1

    def test_success_closes_it(self, breaker: Breaker) -> None:
        self.refuse(breaker)
        assert breaker.answered()
        assert breaker.lets_through(0, 5) is None
        assert not any(self.refuse(breaker, REFUSALS - 1))

    def test_one_owner_is_not_enough(self, breaker: Breaker) -> None:
        assert not any(breaker.refused("o", "refused", first=True) for _ in range(1000))

    def test_one_image_is_not_enough(self, breaker: Breaker) -> None:
        for number in range(1000):
            assert not breaker.refused(f"o{number}", "refused", first=False)

    def test_refusal_closes_an_open_breaker(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        breaker.lets_through(1, 0)
        assert breaker.refused("o", "refused", first=False)
        assert breaker.state is State.CLOSED

    def test_refusals_between_failures_reset_them(self, breaker: Breaker) -> None:
        for number in range(FAILURES * 3):
            assert not breaker.failed(0, f"o{number}", "timeout")
            assert not breaker.refused("o", "refused", first=False)


class TestForcedOpen:
    def test_answers_and_failures_do_not_close_it(self, breaker: Breaker) -> None:
        assert breaker.force_open("its directory is missing")
        assert not breaker.force_open("again")
        assert not breaker.answered()
        assert not any(breaker.failed(0, f"o{n}", "backend", at_once=True) for n in range(10))
        assert not any(breaker.refused(f"o{n}", "x", first=True) for n in range(2 * REFUSALS))
        assert breaker.state is State.FORCED_OPEN
        assert breaker.lets_through(1e9, 0) == 0


@given(
    st.lists(
        st.tuples(
            st.floats(0, 20),
            st.sampled_from(["begin", "good", "bad", "worse", "refused", "blow"]),
            st.sampled_from(["a", "b", None]),
            st.booleans(),
        ),
        max_size=200,
    ),
    st.booleans(),
)
def test_breaker_that_is_not_closed_lets_at_most_one_through(  # noqa: C901 - an event a branch
    happens: list[tuple[float, str, str | None, bool]], of_one: bool
) -> None:
    """For any order of starts and answers, not counting requests in flight when it opened."""
    breaker = Breaker(middle, of_one_owner=of_one)
    now, running, before = 0.0, 0, 0
    for seconds, event, owner, first in happens:
        now += seconds
        if event == "begin":
            through = breaker.lets_through(now, running)
            if through is None:
                before = running + 1
            elif through:
                assert through == 1
                assert running == 0
            if through is None or through:
                running += 1
        elif event == "blow":
            breaker.force_open("x")
        elif running:
            running -= 1
            if event == "good":
                breaker.answered()
            elif event == "refused":
                breaker.refused(owner, "x", first=first)
            else:
                breaker.failed(now, owner, "x", at_once=event == "worse")
        if breaker.state is not State.CLOSED:
            assert running <= max(1, before)
            if not running:
                before = 0
        assert not (breaker.state is State.FORCED_OPEN and breaker.lets_through(now, 0))


class TestEndPause:
    def test_lets_a_probe_through_now(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        breaker.end_pause(0.01)
        assert breaker.state_at(0.01) is State.HALF_OPEN
        assert (breaker.lets_through(0.01, 0), breaker.lets_through(0.01, 1)) == (1, 0)

    def test_does_not_shorten_the_pauses_after_it(self, breaker: Breaker) -> None:
        other = Breaker(middle)
        trip(breaker, 0)
        trip(other, 0)
        breaker.end_pause(0.01)
        for each in (breaker, other):
            each.failed(100, "o", "backend")
        assert breaker.opened_until == other.opened_until

    @pytest.mark.parametrize("state", [State.CLOSED, State.HALF_OPEN, State.FORCED_OPEN])
    def test_changes_no_other_state(self, breaker: Breaker, state: State) -> None:
        if state is State.FORCED_OPEN:
            breaker.force_open("paused")
        elif state is State.HALF_OPEN:
            for number in range(REFUSALS):
                breaker.refused(f"o{number}", "x", first=True)
        before = (breaker.state, breaker.opened_until, breaker.reason)
        assert breaker.state is state
        breaker.end_pause(50)
        assert (breaker.state, breaker.opened_until, breaker.reason) == before
