# SPDX-License-Identifier: Apache-2.0
"""What one store may be asked for at a time, and what its answers change."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.breaker import FAILURES, Breaker, State
from evscrub.clock import Moment
from evscrub.delay_queue import Source
from evscrub.lane import STALL_SECONDS, Change, Lane
from evscrub.pace import Pace
from evscrub.registry.claims import Claim
from evscrub.rules import ImageRow, Kind
from evscrub.verdict import EMPTY_DIRECTORY, GONE, MISSING_DIRECTORY, NOT_FOUND, Outcome, Verdict
from evscrub.work import Work

IN_USE = Verdict(Outcome.IN_USE, "in_use")
THROTTLED = Verdict(Outcome.TRANSIENT, "throttled")
DENIED = Verdict(
    Outcome.TRANSIENT, "permission_denied", "Forbidden", "user x may not delete in /a_b"
)
UNEXPECTED = Verdict(Outcome.UNKNOWN, "unexpected")
NO_ACCESS = Verdict(Outcome.STORE_TROUBLE, "no_write_access")
BAD_URL = Verdict(Outcome.CONFIGURATION, "bad_url")


def new_lane(concurrent: int = 16, rate: float = 0.0, limit: int = 20) -> Lane:
    return Lane("s", Pace(concurrent, rate), Breaker(limit, lambda low, high: (low + high) / 2))


def new_work(name: str = "i") -> Work:
    now = datetime(2026, 1, 1)
    claim = Claim(ImageRow(name, "o", 1, "deleted", True, now), Kind.PENDING, (), now)
    return Work(claim, now, Moment(0, 0), 0.0, Source.EVENT)


def answers(lane: Lane, verdict: Verdict, count: int, now: float = 0.0) -> list[Change | None]:
    return [lane.answered(verdict, Kind.PENDING, now) for _ in range(count)]


class TestAnswered:
    def test_a_good_answer_changes_nothing(self) -> None:
        assert answers(new_lane(), GONE, 3) == [None] * 3

    def test_throttling_slows_and_then_opens(self) -> None:
        lane = new_lane(16, 40)
        assert answers(lane, THROTTLED, FAILURES) == [
            Change.SLOWED,
            *[None] * (FAILURES - 2),
            Change.OPENED,
        ]
        assert (lane.pace.concurrent, lane.pace.rate) == (8, 20)
        assert lane.is_shut(1)

    def test_what_nobody_expected_opens_but_does_not_slow(self) -> None:
        lane = new_lane(16, 40)
        assert answers(lane, UNEXPECTED, FAILURES) == [*[None] * (FAILURES - 1), Change.OPENED]
        assert not lane.pace.is_slowed

    def test_a_refusal_is_no_overload_and_is_told_in_full(self) -> None:
        lane = new_lane(16, 40)
        assert answers(lane, DENIED, FAILURES) == [*[None] * (FAILURES - 1), Change.OPENED]
        assert not lane.pace.is_slowed
        assert lane.breaker.reason == "permission denied: user x may not delete in /a_b"

    def test_lost_write_access_opens_at_once(self) -> None:
        lane = new_lane()
        assert answers(lane, NO_ACCESS, 2) == [Change.OPENED, None]

    @pytest.mark.parametrize("verdict", [MISSING_DIRECTORY, EMPTY_DIRECTORY])
    def test_a_directory_that_is_not_mounted_blows_the_fuse(self, verdict: Verdict) -> None:
        lane = new_lane()
        assert lane.believed(verdict) == verdict
        assert answers(lane, verdict, 2) == [Change.BLOWN, None]
        assert lane.is_shut(1e9)

    @pytest.mark.parametrize("verdict", [MISSING_DIRECTORY, EMPTY_DIRECTORY])
    def test_such_a_directory_is_believed_where_not_found_is(self, verdict: Verdict) -> None:
        lane = new_lane(limit=0)
        assert lane.believed(verdict) == NOT_FOUND
        assert lane.believed(THROTTLED) == THROTTLED

    def test_a_run_of_not_found_blows_the_fuse(self) -> None:
        assert answers(new_lane(limit=3), NOT_FOUND, 4) == [None, None, Change.BLOWN, None]

    def test_data_that_was_there_ends_the_run(self) -> None:
        lane = new_lane(limit=3)
        assert answers(lane, NOT_FOUND, 2) == [None, None]
        assert answers(lane, GONE, 1) == [None]
        assert answers(lane, NOT_FOUND, 2) == [None, None]

    def test_what_is_in_use_says_nothing_about_the_run(self) -> None:
        lane = new_lane(limit=3)
        answers(lane, NOT_FOUND, 2)
        answers(lane, IN_USE, 5)
        assert answers(lane, NOT_FOUND, 1) == [Change.BLOWN]

    def test_claims_taken_over_do_not_count(self) -> None:
        lane = new_lane(limit=3)
        for _ in range(50):
            assert lane.answered(NOT_FOUND, Kind.STALE, 0) is None

    @pytest.mark.parametrize("verdict", [GONE, NOT_FOUND, IN_USE])
    def test_any_plain_answer_to_a_probe_closes(self, verdict: Verdict) -> None:
        lane = new_lane()
        answers(lane, UNEXPECTED, FAILURES)
        assert not lane.is_shut(10)
        assert answers(lane, verdict, 1, 10) == [Change.CLOSED]

    def test_a_bad_url_says_nothing_about_the_store(self) -> None:
        lane = new_lane()
        answers(lane, UNEXPECTED, FAILURES - 1)
        assert answers(lane, BAD_URL, 10) == [None] * 10
        assert lane.breaker.state is State.CLOSED
        assert answers(lane, UNEXPECTED, 1) == [Change.OPENED]

    def test_recovery_is_told_once(self) -> None:
        lane = new_lane(16, 40)
        answers(lane, THROTTLED, 1)
        changes = [lane.answered(GONE, Kind.PENDING, second) for second in range(1, 100)]
        assert [change for change in changes if change] == [Change.RECOVERED]
        assert (lane.pace.concurrent, lane.pace.rate) == (16, 40)

    def test_failed_probes_do_not_slow_it_further(self) -> None:
        """They tell that it is still down, not how much it would bear."""
        lane = new_lane(16, 40)
        now = 0.0
        for _ in range(FAILURES):
            lane.answered(THROTTLED, Kind.PENDING, now)
        slowed = lane.pace.concurrent, lane.pace.rate
        for _ in range(20):
            now += 100
            assert lane.breaker.lets_through(now, 0) == 1
            lane.answered(THROTTLED, Kind.PENDING, now)
        assert (lane.pace.concurrent, lane.pace.rate) == slowed


class TestClaimSize:
    def test_fills_the_free_slots(self) -> None:
        assert new_lane(16).claim_size(0, 100, 0) == 16

    def test_nothing_while_enough_is_claimed(self) -> None:
        lane = new_lane(4)
        lane.running = 4
        assert lane.claim_size(0, 100, 0) == 0

    def test_is_a_batch_at_most(self) -> None:
        assert new_lane(1000).claim_size(0, 100, 0) == 100

    def test_claims_ahead_for_a_fast_store(self) -> None:
        lane = new_lane(4)
        for number in range(2000):
            lane.answered(GONE, Kind.PENDING, number / 200)
        lane.running = 4
        assert lane.claim_size(10, 100, 0) == pytest.approx(50, abs=2)

    @pytest.mark.parametrize(("rate", "store_rate"), [(20, 0), (0, 20), (20, 400), (400, 20)])
    def test_claims_a_quarter_seconds_worth_under_a_rate(
        self, rate: float, store_rate: float
    ) -> None:
        assert new_lane(64, store_rate).claim_size(0, 100, rate) == 5

    def test_claims_at_least_one_under_a_low_rate(self) -> None:
        assert new_lane(64, 0.1).claim_size(0, 100, 0) == 1

    def test_claims_one_for_a_probe(self) -> None:
        lane = new_lane()
        answers(lane, THROTTLED, FAILURES)
        assert lane.claim_size(1, 100, 0) == 0
        assert lane.claim_size(10, 100, 0) == 1
        lane.backlog.append(new_work())
        assert lane.claim_size(10, 100, 0) == 0
        lane.running, _ = 1, lane.backlog.popleft()
        assert lane.claim_size(10, 100, 0) == 0

    def test_goes_on_while_one_claim_waits_for_the_database(self) -> None:
        lane = self.busy_lane()
        assert lane.claim_size(10, 100, 0) == 100
        lane.claim_begins(90)
        assert lane.claim_size(10, 100, 0) == 100
        lane.claim_begins(9)
        assert lane.claim_size(10, 100, 0) == 0
        lane.claim_ends(90, 90)
        lane.backlog.extend(new_work() for _ in range(90))
        assert lane.claim_size(10, 100, 0) == 100
        lane.backlog.append(new_work())
        assert lane.claim_size(10, 100, 0) == 0

    def busy_lane(self) -> Lane:
        """One whose deletes are fast, with all slots in use."""
        lane = new_lane(4)
        for number in range(20_000):
            lane.answered(GONE, Kind.PENDING, number / 2000)
        lane.running = 4
        return lane

    def test_a_probe_is_not_claimed_twice(self) -> None:
        lane = new_lane()
        answers(lane, THROTTLED, FAILURES)
        assert lane.claim_size(10, 100, 0) == 1
        lane.claim_begins(1)
        assert lane.claim_size(10, 100, 0) == 0

    def test_asks_for_more_where_other_agents_were_first(self) -> None:
        lane = new_lane(8)
        for got, size in ((8, 8), (4, 11), (0, 22), (0, 43), (0, 86), (0, 100)):
            lane.claim_begins(8)
            lane.claim_ends(8, got)
            assert lane.claim_size(0, 100, 0) == size
        for _ in range(100):
            lane.claim_begins(100)
            lane.claim_ends(100, 0)
        lane.claim_begins(100)
        lane.claim_ends(100, 100)
        assert lane.claim_size(0, 100, 0) == 16

    def test_asks_for_no_more_than_a_rate_allows(self) -> None:
        lane = new_lane(8, 40)
        lane.claim_begins(8)
        lane.claim_ends(8, 1)
        assert lane.claim_size(0, 100, 0) == 8

    def test_claims_nothing_in_a_paused_store(self) -> None:
        lane = new_lane()
        lane.breaker.blow("x")
        assert lane.claim_size(1e9, 100, 0) == 0


def test_no_more_begin_than_the_pace_allows() -> None:
    lane = new_lane(2)
    lane.backlog.extend(new_work() for _ in range(3))
    assert lane.may_begin(0)
    lane.running = 1
    assert lane.may_begin(0)
    lane.running = 2
    assert not lane.may_begin(0)
    lane.backlog.clear()
    lane.running = 0
    assert not lane.may_begin(0)


@given(
    st.integers(1, 6),
    st.lists(
        st.tuples(
            st.floats(0, 3),
            st.sampled_from([None, None, None, GONE, NOT_FOUND, IN_USE, THROTTLED, UNEXPECTED]),
        ),
        max_size=150,
    ),
)
def test_no_more_at_a_time_than_the_pace_and_one_while_shut(
    concurrent: int, happens: list[tuple[float, Verdict | None]]
) -> None:
    lane = new_lane(concurrent, 0, 5)
    now = 0.0
    for seconds, verdict in happens:
        now += seconds
        if verdict is None:
            lane.backlog.append(new_work())
            shut = lane.breaker.state is not State.CLOSED
            began = 0
            while lane.may_begin(now):
                lane.begin(now)
                began += 1
                assert lane.running <= lane.pace.concurrent <= concurrent
            if shut:
                assert began == 0 or lane.running == 1
        elif lane.running:
            lane.running -= 1
            lane.answered(verdict, Kind.PENDING, now)


class TestWorkers:
    """How many workers a lane has."""

    def begun(self, lane: Lane, now: float = 1.0) -> int:
        """Begin what may be begun; returns how many workers that makes."""
        count = 0
        while lane.may_begin(now):
            assert lane.begin(now) is not None
            count += 1
        return count

    def lane(self, seconds: float | None, images: int = 100) -> Lane:
        lane = new_lane()
        lane.backlog.extend(new_work(str(number)) for number in range(images))
        if seconds is not None:
            lane.took(seconds, 0)
        return lane

    def test_one_is_first_where_nothing_is_known(self) -> None:
        assert self.begun(self.lane(None)) == 1

    @pytest.mark.parametrize(
        ("seconds", "workers"), [(0.00006, 1), (0.001, 2), (0.003, 6), (0.005, 16), (30, 16)]
    )
    def test_as_many_as_have_something_to_do(self, seconds: float, workers: int) -> None:
        assert self.begun(self.lane(seconds)) == workers

    def test_another_when_nothing_is_heard_of_those_there_are(self) -> None:
        lane = self.lane(0.00006)
        assert self.begun(lane, 1) == 1
        assert self.begun(lane, 1 + STALL_SECONDS / 2) == 0
        assert self.begun(lane, 1 + STALL_SECONDS) == 1
        lane.took(0.00006, 1 + 1.9 * STALL_SECONDS)
        assert self.begun(lane, 1 + 2.5 * STALL_SECONDS) == 0

    def test_another_when_the_first_is_gone_and_nothing_is_known_yet(self) -> None:
        """As when its image's lease had run out."""
        lane = self.lane(None)
        assert self.begun(lane) == 1
        lane.running = 0
        assert self.begun(lane) == 1

    def test_those_that_wait_for_a_turn_do_not_count(self) -> None:
        lane = self.lane(0.0001)
        assert self.begun(lane) == 1
        lane.waiting = 1
        assert self.begun(lane) == 1

    def test_the_fastest_deletes_count_most(self) -> None:
        lane = self.lane(0.001)
        lane.took(1.001, 0)
        assert lane.delete_seconds == pytest.approx(0.051)
        lane.took(0.002, 0)
        assert lane.delete_seconds == 0.002

    def test_nothing_is_taken_from_an_empty_backlog(self) -> None:
        lane = new_lane()
        assert lane.begin(0) is None
        assert lane.next_of_run() is None
        assert lane.running == 0

    @pytest.mark.parametrize("state", [State.PROBING, State.OPEN, State.BLOWN])
    def test_a_probe_is_one(self, state: State) -> None:
        lane = self.lane(0)
        assert lane.has_runs
        lane.breaker.state = state
        assert not lane.has_runs

    @pytest.mark.parametrize(
        ("seconds", "images", "turns"),
        [
            (None, 100, 0),
            (0.0001, 100, 100),
            (0.001, 100, 50),
            (0.001, 20, 20),
            (0.004, 100, 12),
            (0.005, 100, 0),
            (1, 9, 0),
        ],
    )
    def test_turns_are_taken_ahead_where_deletes_are_fast(
        self, seconds: float | None, images: int, turns: int
    ) -> None:
        assert self.lane(seconds, images).turns_worth_taking == turns
