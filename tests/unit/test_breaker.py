# SPDX-License-Identifier: Apache-2.0
"""Whether a store may be asked: the breaker and the fuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.breaker import FAILURES, Breaker, State
from evscrub.rules import Kind


def middle(low: float, high: float) -> float:
    return (low + high) / 2


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(20, middle)


def trip(breaker: Breaker, now: float) -> None:
    """Fail until it opens."""
    assert not any(breaker.failed(now, "backend") for _ in range(FAILURES - 1))
    assert breaker.failed(now, "backend")


class TestBreaker:
    def test_lets_everything_through_at_first(self, breaker: Breaker) -> None:
        assert breaker.lets_through(0, 1000) is None

    def test_opens_after_failures_in_a_row(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        assert breaker.state is State.OPEN
        assert breaker.reason == "backend"
        assert breaker.lets_through(4.99, 0) == 0

    def test_an_answer_between_failures_keeps_it_closed(self, breaker: Breaker) -> None:
        for _ in range(10 * FAILURES):
            assert not any(breaker.failed(0, "backend") for _ in range(FAILURES - 1))
            assert not breaker.answered()
        assert breaker.state is State.CLOSED

    def test_one_failure_is_enough_where_it_says_so(self, breaker: Breaker) -> None:
        assert breaker.failed(0, "no_write_access", at_once=True)
        assert breaker.lets_through(1, 0) == 0

    def test_probes_with_one_request(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        assert breaker.lets_through(5, 0) == 1
        assert breaker.state is State.PROBING
        assert breaker.lets_through(5, 1) == 0

    def test_a_good_probe_closes_it(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        breaker.lets_through(5, 0)
        assert breaker.answered()
        assert breaker.lets_through(5, 50) is None
        assert breaker.reason == ""

    def test_pauses_double_up_to_a_minute(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        now, pauses = 0.0, []
        for _ in range(8):
            pauses.append(breaker.opened_until - now)
            now = breaker.opened_until
            assert breaker.lets_through(now, 0) == 1
            assert not breaker.failed(now, "timeout")
        assert pauses == pytest.approx([5, 10, 20, 40, 60, 60, 60, 60])
        assert breaker.reason == "timeout"

    def test_pauses_start_anew_after_an_answer(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        breaker.lets_through(5, 0)
        breaker.failed(5, "backend")
        breaker.lets_through(15, 0)
        breaker.answered()
        trip(breaker, 100)
        assert breaker.opened_until == pytest.approx(105)

    def test_failures_that_come_while_it_is_open_do_not_prolong_it(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        for _ in range(100):
            assert not breaker.failed(1, "backend")
        assert breaker.opened_until == pytest.approx(5)

    def test_pauses_are_drawn_at_random(self) -> None:
        drawn: list[tuple[float, float]] = []

        def highest(low: float, high: float) -> float:
            drawn.append((low, high))
            return high

        breaker = Breaker(0, highest)
        trip(breaker, 0)
        assert drawn == [(0.75, 1.25)]
        assert breaker.opened_until == pytest.approx(6.25)


class TestFuse:
    def test_blows_at_a_run_of_not_found(self, breaker: Breaker) -> None:
        assert [breaker.not_found() for _ in range(20)] == [False] * 19 + [True]
        assert breaker.state is State.BLOWN
        assert "20 images in a row are not found" in breaker.reason
        assert breaker.lets_through(1e9, 0) == 0

    def test_tells_but_once(self, breaker: Breaker) -> None:
        assert sum(breaker.not_found() for _ in range(100)) == 1

    def test_data_that_was_there_ends_the_run(self, breaker: Breaker) -> None:
        for _ in range(10):
            assert not any(breaker.not_found() for _ in range(19))
            breaker.deleted()

    def test_nought_believes_any_number(self) -> None:
        breaker = Breaker(0, middle)
        assert not any(breaker.not_found() for _ in range(10_000))
        assert not breaker.doubts(Kind.PENDING)

    @pytest.mark.parametrize(("kind", "doubted"), [(kind, kind is not Kind.STALE) for kind in Kind])
    def test_doubts_all_but_claims_that_were_taken_over(
        self, breaker: Breaker, kind: Kind, *, doubted: bool
    ) -> None:
        assert breaker.doubts(kind) is doubted

    def test_neither_answer_nor_failure_sets_it_right(self, breaker: Breaker) -> None:
        assert breaker.blow("its directory is missing")
        assert not breaker.answered()
        assert not any(breaker.failed(0, "backend") for _ in range(10))
        assert breaker.state is State.BLOWN
        assert breaker.reason == "its directory is missing"

    def test_an_operator_sets_it_right(self, breaker: Breaker) -> None:
        breaker.blow("x")
        breaker.reset(0)
        assert breaker.lets_through(0, 5) is None
        assert not any(breaker.not_found() for _ in range(19))

    def test_a_reset_leaves_an_open_breaker_open(self, breaker: Breaker) -> None:
        trip(breaker, 0)
        breaker.reset(0)
        assert breaker.lets_through(1, 0) == 0


@given(
    st.lists(
        st.tuples(
            st.floats(0, 20),
            st.sampled_from(["begin", "good", "bad", "worse", "missing", "blow", "reset"]),
        ),
        max_size=200,
    ),
    st.integers(0, 5),
)
def test_a_shut_breaker_lets_at_most_one_through(  # noqa: C901, PLR0912 - an event a branch
    happens: list[tuple[float, str]], limit: int
) -> None:
    """However answers and beginnings come, beside those under way when it shut."""
    breaker = Breaker(limit, middle)
    now, running, before = 0.0, 0, 0
    for seconds, event in happens:
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
            breaker.blow("x")
        elif event == "reset":
            breaker.reset(now)
        elif running:
            running -= 1
            if event == "good":
                breaker.answered()
                breaker.deleted()
            elif event == "missing":
                breaker.not_found()
                breaker.answered()
            else:
                breaker.failed(now, "x", at_once=event == "worse")
        if breaker.state is not State.CLOSED:
            assert running <= max(1, before)
            if not running:
                before = 0
        assert not (breaker.state is State.BLOWN and breaker.lets_through(now, 0))
