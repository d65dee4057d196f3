# SPDX-License-Identifier: Apache-2.0
"""A lane: its limits, and the effects of answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.domain.evidence import Origin, Scope
from evscrub.domain.verdict import (
    EMPTY_DIRECTORY,
    GONE,
    MISSING_BELOW,
    MISSING_DIRECTORY,
    NO_PROOF,
    NOT_FOUND,
    TOO_MANY_MISSING,
    TOO_MANY_OF_ONE,
    UNPROVEN,
    WRONG_FOR_ONE,
    WRONG_STORE,
    Outcome,
    Verdict,
)
from evscrub.flow_control.adaptive_limit import Pace
from evscrub.flow_control.circuit_breaker import FAILURES, State
from evscrub.flow_control.health import Change, Event, Health
from evscrub.queueing.delay_queue import Source, Taken
from evscrub.queueing.turns import owner_key
from evscrub.scrubbing.batch import Batch
from evscrub.scrubbing.claim_ahead import claim_limits, claim_size
from evscrub.scrubbing.lane import STALL_SECONDS, Lane
from evscrub.scrubbing.slots import Slots
from tests.unit.world import new_job

ONE = owner_key("one")

IN_USE = Verdict(Outcome.IN_USE, "in_use")
REFUSED = Verdict(Outcome.REFUSED, "refused")
WRONG = Verdict(Outcome.STORE_TROUBLE, WRONG_STORE, hint="an image is not there")
THROTTLED = Verdict(Outcome.TRANSIENT, "throttled")
DENIED = Verdict(
    Outcome.TRANSIENT, "permission_denied", "Forbidden", "user x may not delete in /a_b"
)
UNEXPECTED = Verdict(Outcome.UNKNOWN, "unexpected")
NO_ACCESS = Verdict(Outcome.STORE_TROUBLE, "no_write_access")
BAD_URL = Verdict(Outcome.CONFIGURATION, "bad_url")


def new_lane(concurrent: int = 16, rate: float = 0.0, limit: int = 20) -> Lane:
    health = Health(Pace(concurrent, rate), lambda low, high: (low + high) / 2)
    return Lane("s", health, not_found_limit=limit)


def shared_lane(limit: int = 20) -> Lane:
    """Return a lane with images of several owners."""
    lane = new_lane(limit=limit)
    answers(lane, GONE, 2)
    return lane


def fill(lane: Lane, count: int, owners: str = "abcd") -> None:
    """Add claimed images of several owners to the backlog."""
    for number in range(count):
        lane.push(new_job(str(number), owners[number % len(owners)]))


def run(lane: Lane, count: int, owners: str = "abcd") -> list[Batch]:
    """Start workers."""
    slots = []
    for number in range(count):
        lane.push(new_job(f"r{number}", owners[number % len(owners)]))
        slot = lane.begin(0, 1)
        assert slot is not None
        slots.append(slot)
    return slots


def answers(
    lane: Lane, verdict: Verdict, count: int, now: float = 0.0, *, first: bool = True
) -> list[Change | None]:
    """Apply an answer to one image of each of several owners."""
    origins = [Origin(f"o{number}", "p", first=first) for number in range(count)]
    return [lane.answered(verdict, origin, now) for origin in origins]


def events(changes: list[Change | None]) -> list[Event | None]:
    return [None if change is None else change.event for change in changes]


def of_one(lane: Lane, verdict: Verdict, count: int, now: float = 0.0, part: str = "p") -> Change:
    """Apply an answer to several images of one owner; returns the last change."""
    changes = [lane.answered(verdict, Origin("one", part), now) for _ in range(count)]
    return [change for change in changes if change][-1]


class TestAnswered:
    def test_good_answer_changes_nothing(self) -> None:
        assert answers(new_lane(), GONE, 3) == [None] * 3

    def test_throttling_slows_then_opens(self) -> None:
        lane = new_lane(16, 40)
        assert events(answers(lane, THROTTLED, FAILURES)) == [
            Event.SLOWED,
            *[None] * (FAILURES - 2),
            Event.OPENED,
        ]
        assert (lane.pace.concurrent, lane.pace.rate) == (8, 20)
        assert lane.is_shut(0.05)

    def test_lone_owner_slows_the_store_until_another_arrives(self) -> None:
        lane = new_lane(16, 40)
        assert of_one(lane, THROTTLED, 2).event is Event.SLOWED
        assert lane.health.blamed == ("one",)
        lane.health.make_way()
        assert not lane.pace.is_slowed
        assert lane.health.blamed is None

    def test_one_owner_among_others_does_not_slow_the_store(self) -> None:
        lane = new_lane(16, 40)
        answers(lane, GONE, 2)
        assert of_one(lane, THROTTLED, 4 + 1).scope is Scope.OWNER
        assert not lane.pace.is_slowed
        lane = new_lane(16, 40)
        lane.push(new_job("1", "other"))
        of_one(lane, THROTTLED, FAILURES)
        assert not lane.pace.is_slowed

    def test_store_slowed_by_several_owners_stays_slowed(self) -> None:
        lane = new_lane(16, 40)
        answers(lane, THROTTLED, 2)
        assert lane.health.blamed is None
        lane.health.make_way()
        assert lane.pace.is_slowed

    @pytest.mark.parametrize("verdict", [UNEXPECTED, DENIED])
    def test_failure_without_overload_opens_without_slowing(self, verdict: Verdict) -> None:
        lane = new_lane(16, 40)
        assert events(answers(lane, verdict, FAILURES))[-1] is Event.OPENED
        assert not lane.pace.is_slowed

    def test_repeated_failure_of_an_image_changes_nothing(self) -> None:
        lane = new_lane(16, 40)
        assert answers(lane, THROTTLED, 100, first=False) == [None] * 100
        assert not lane.pace.is_slowed

    def test_failing_owner_stops_only_that_owner(self) -> None:
        lane = shared_lane()
        change = of_one(lane, UNEXPECTED, FAILURES)
        assert change == Change(Event.OPENED, Scope.OWNER, "one", "unexpected")
        assert not lane.takes("one", 0.05)
        assert lane.takes("other", 0.05)
        assert lane.takes("one", 1)
        closed = lane.answered(GONE, Origin("one", "p"), 1)
        assert closed == Change(Event.CLOSED, Scope.OWNER, "one")
        assert lane.takes("one", 1)

    def test_stopped_owner_is_probed_with_one_image(self) -> None:
        lane = shared_lane()
        of_one(lane, UNEXPECTED, FAILURES)
        assert claim_limits(lane, 0.05, 100) == {ONE: 0}
        assert claim_limits(lane, 1, 100) == {ONE: 1}
        taken = [Taken("1", ONE, 0.0, Source.EVENT)]
        lane.claiming.begins(taken, 0)
        assert claim_limits(lane, 1, 100) == {ONE: 0}
        lane.claiming.ends(taken, 1)
        assert lane.takes("one", 1)
        lane.push(new_job("1", "one"))
        assert not lane.takes("one", 1)
        assert lane.begin(1, 1) is not None
        assert not lane.is_shut_for("one", 1)
        assert claim_limits(lane, 1, 100) == {ONE: 0}

    def test_outage_does_not_leave_owners_stopped(self) -> None:
        lane = shared_lane()
        of_one(lane, UNEXPECTED, FAILURES)
        answers(lane, UNEXPECTED, FAILURES)
        assert lane.breaker.state is State.OPEN
        assert not lane.health.shut
        lane.is_shut(1)
        assert events(answers(lane, GONE, 1, 1)) == [Event.CLOSED]
        assert lane.takes("one", 1)

    def test_unknown_part_does_not_open_the_store(self) -> None:
        """For instance a foreign server that locations of several owners name."""
        lane = new_lane()
        lane.answered(GONE, Origin("o", "main"), 0)
        for number in range(100):
            change = lane.answered(THROTTLED, Origin(f"o{number % 20}", "evil"), 1 + number)
            assert change is None or change.scope is Scope.OWNER
        assert lane.breaker.state is State.CLOSED
        assert not lane.pace.is_slowed

    def test_unknown_part_opens_the_store_if_no_part_works(self) -> None:
        lane = new_lane()
        lane.answered(GONE, Origin("o", "main"), 0)
        assert events(answers(lane, UNEXPECTED, FAILURES, 601))[-1] is Event.OPENED

    def test_refusal_is_not_overload_and_has_its_full_reason(self) -> None:
        lane = new_lane(16, 40)
        assert events(answers(lane, DENIED, FAILURES))[-1] is Event.OPENED
        assert not lane.pace.is_slowed
        assert lane.breaker.reason == "permission denied: user x may not delete in /a_b"

    def test_lost_write_access_opens_at_once(self) -> None:
        lane = new_lane()
        assert events(answers(lane, NO_ACCESS, 2)) == [Event.OPENED, None]

    @pytest.mark.parametrize("verdict", [MISSING_DIRECTORY, EMPTY_DIRECTORY])
    def test_unmounted_directory_pauses_the_store(self, verdict: Verdict) -> None:
        lane = new_lane()
        assert lane.effective_verdict(verdict) == verdict
        assert events(answers(lane, verdict, 2)) == [Event.PAUSED, None]
        assert lane.is_shut(1e9)

    def test_missing_subdirectory_does_not_affect_the_store(self) -> None:
        lane = new_lane(limit=3)
        assert lane.effective_verdict(MISSING_BELOW) == MISSING_BELOW
        assert events(answers(lane, MISSING_BELOW, 100)) == [None] * 100
        assert not lane.is_shut(0)

    @pytest.mark.parametrize("verdict", [MISSING_DIRECTORY, EMPTY_DIRECTORY, MISSING_BELOW])
    def test_missing_directory_is_not_found_in_an_acknowledged_store(
        self, verdict: Verdict
    ) -> None:
        lane = new_lane(limit=0)
        assert lane.effective_verdict(verdict) == NOT_FOUND
        assert lane.effective_verdict(THROTTLED) == THROTTLED

    @pytest.mark.parametrize(
        ("verdict", "count", "event"),
        [
            (UNEXPECTED, FAILURES, Event.OPENED),
            (REFUSED, 20, Event.REFUSING),
        ],
    )
    def test_lone_owner_shuts_the_store_until_another_arrives(
        self, verdict: Verdict, count: int, event: Event
    ) -> None:
        lane = new_lane()
        change = of_one(lane, verdict, count)
        assert (change.event, change.scope) == (event, Scope.STORE)
        state = lane.breaker.state
        assert state is not State.CLOSED
        assert lane.health.blamed == ("one",)
        lane.health.make_way()
        assert lane.breaker.state is State.CLOSED
        assert lane.health.shut["one"].state is state
        assert lane.takes("other", 0)
        assert lane.health.blamed is None
        # What is known of the first still holds,
        lane.is_shut_for("one", 100)
        lane.answered(verdict, Origin("one", "p"), 100)
        assert not lane.takes("one", 100) or event is Event.REFUSING
        # until it is proven wrong.
        lane.answered(GONE, Origin("one", "p"), 101)
        assert lane.takes("one", 101)

    def test_good_answer_reopens_a_store_shut_by_a_lone_owner(self) -> None:
        lane = new_lane()
        of_one(lane, UNEXPECTED, FAILURES)
        assert not lane.is_shut(1)
        closed = lane.answered(GONE, Origin("one", "p"), 1)
        assert closed == Change(Event.CLOSED)
        assert lane.health.blamed is None
        # The store's own breaker takes two owners again.
        answers(lane, GONE, 2, 1)
        assert of_one(lane, UNEXPECTED, FAILURES, 2).scope is Scope.OWNER

    def test_make_way_keeps_a_breaker_opened_by_several_owners(self) -> None:
        lane = new_lane()
        of_one(lane, UNEXPECTED, FAILURES)
        lane.answered(MISSING_DIRECTORY, Origin("one", "p"), 1)
        assert lane.health.blamed is None
        lane.health.make_way()
        assert lane.breaker.state is State.FORCED_OPEN

    def test_reset_resumes_the_store(self) -> None:
        lane = new_lane()
        lane.answered(WRONG, Origin("one", "p"), 0)
        assert lane.is_shut(1e9)
        lane.health.reset()
        assert lane.takes("one", 0)

    @pytest.mark.parametrize("reason", [WRONG_STORE, TOO_MANY_MISSING])
    def test_wrong_store_is_paused_with_a_reason(self, reason: str) -> None:
        lane = new_lane()
        verdict = Verdict(Outcome.STORE_TROUBLE, reason, hint="an image is not there")
        assert lane.answered(verdict, Origin("one", "p"), 0) == Change(
            Event.PAUSED, reason="an image is not there"
        )
        assert lane.is_shut(1e9)

    @pytest.mark.parametrize("reason", [TOO_MANY_OF_ONE, WRONG_FOR_ONE])
    def test_missing_data_of_a_lone_owner_pauses_until_another_arrives(self, reason: str) -> None:
        verdict = Verdict(Outcome.STORE_TROUBLE, reason, hint="20 images are not there")
        lane = new_lane()
        assert of_one(lane, verdict, 1) == Change(Event.PAUSED, reason="20 images are not there")
        assert lane.is_shut(1e9)
        assert lane.health.blamed == ("one",)
        lane.health.make_way()
        assert lane.takes("other", 0)
        assert lane.takes("one", 0)
        answers(lane, GONE, 2)
        assert lane.answered(verdict, Origin("one", "p"), 1) is None
        assert lane.takes("one", 1)

    def test_unproven_data_does_not_affect_the_store(self) -> None:
        assert events(answers(new_lane(), UNPROVEN, 100)) == [None] * 100

    def test_store_without_proofs_fails(self) -> None:
        lane = shared_lane()
        assert events(answers(lane, NO_PROOF, FAILURES))[-1] is Event.OPENED
        assert not lane.pace.is_slowed

    @pytest.mark.parametrize("verdict", [GONE, NOT_FOUND, IN_USE, REFUSED])
    def test_any_answer_to_a_probe_closes(self, verdict: Verdict) -> None:
        lane = new_lane()
        answers(lane, UNEXPECTED, FAILURES)
        assert not lane.is_shut(10)
        assert events(answers(lane, verdict, 1, 10)) == [Event.CLOSED]

    def test_refusals_let_one_through_at_a_time(self) -> None:
        lane = new_lane()
        assert events(answers(lane, REFUSED, 20)) == [*[None] * 19, Event.REFUSING]
        assert not lane.pace.is_slowed
        assert claim_size(lane, 0, 100, 0) == 1
        run(lane, 1)
        assert claim_size(lane, 0, 100, 0) == 0
        assert events(answers(lane, GONE, 1)) == [Event.CLOSED]

    def test_refusals_of_one_owner_stop_that_owner(self) -> None:
        lane = shared_lane()
        change = of_one(lane, REFUSED, 20)
        assert (change.event, change.scope) == (Event.REFUSING, Scope.OWNER)
        assert claim_limits(lane, 0, 100) == {ONE: 1}
        assert lane.breaker.state is State.CLOSED

    def test_bad_url_does_not_affect_the_store(self) -> None:
        lane = new_lane()
        answers(lane, UNEXPECTED, FAILURES - 1)
        assert answers(lane, BAD_URL, 10) == [None] * 10
        assert lane.breaker.state is State.CLOSED
        assert events(answers(lane, UNEXPECTED, 1)) == [Event.OPENED]

    def test_recovery_is_reported_once(self) -> None:
        lane = new_lane(16, 40)
        answers(lane, THROTTLED, 2)
        changes = [lane.answered(GONE, Origin("o", "p"), second) for second in range(1, 100)]
        assert events([change for change in changes if change]) == [Event.RECOVERED]
        assert (lane.pace.concurrent, lane.pace.rate) == (16, 40)

    def test_failed_probes_do_not_slow_the_store_further(self) -> None:
        """They show that it is still down, not how much load it can take."""
        lane = new_lane(16, 40)
        answers(lane, THROTTLED, FAILURES)
        slowed = lane.pace.concurrent, lane.pace.rate
        for number in range(20):
            now = 100.0 + 100 * number
            assert lane.breaker.lets_through(now, 0) == 1
            lane.answered(THROTTLED, Origin(f"o{number}", "p"), now)
        assert (lane.pace.concurrent, lane.pace.rate) == slowed

    def test_tracked_owners_and_parts_are_bounded(self) -> None:
        lane = new_lane()
        for number in range(5000):
            lane.answered(GONE, Origin("good", f"p{number}"), number)
            lane.answered(UNEXPECTED, Origin(f"o{number}", "p"), number)
            for _ in range(FAILURES - 1):
                lane.answered(UNEXPECTED, Origin(f"o{number}", "strange"), number)
        assert len(lane.health._failing) <= 1000
        assert len(lane.health.shut) <= 1000
        assert len(lane.health._good_at) <= 64


class TestOwners:
    """Slots and claims of one owner among others."""

    def begin_all(self, lane: Lane) -> list[Batch]:
        lane.took(1.0)
        slots = []
        while lane.may_begin(0):
            slot = lane.begin(0, 1)
            assert slot is not None
            slots.append(slot)
        return slots

    def test_lone_owner_leaves_one_slot(self) -> None:
        lane = new_lane()
        fill(lane, 60, "a")
        assert len(self.begin_all(lane)) == 15
        lane.push(new_job("x", "b"))
        assert len(self.begin_all(lane)) == 1
        assert not lane.may_begin(0)

    def test_competing_owner_leaves_a_quarter(self) -> None:
        lane = new_lane()
        fill(lane, 60, "a")
        lane.push(new_job("x", "b"))
        begun = self.begin_all(lane)
        assert sorted({slot.owner for slot in begun}, key=str) == ["a", "b"]
        assert len(begun) == 13

    def test_slots_of_all_stores_count(self) -> None:
        shared = Slots(8)
        lanes = [
            Lane(name, Health(Pace(8), lambda low, _: low), shared, not_found_limit=20)
            for name in ("s", "t")
        ]
        for lane in lanes:
            fill(lane, 20, "a")
        assert [len(self.begin_all(lane)) for lane in lanes] == [7, 0]
        lanes[1].push(new_job("x", "b"))
        assert len(self.begin_all(lanes[1])) == 1

    def test_limited_owner_does_not_block_claims_of_others(self) -> None:
        lane = new_lane()
        fill(lane, 60, "a")
        self.begin_all(lane)
        assert len(lane.backlog) == 45
        assert claim_size(lane, 0, 100, 0) == 1
        assert claim_limits(lane, 0, 100)[owner_key("a")] <= 0

    def test_limited_owner_has_claims_ahead(self) -> None:
        lane = new_lane()
        run(lane, 15, "a")
        assert claim_size(lane, 0, 100, 0) == 1
        assert claim_limits(lane, 0, 100) == {owner_key("a"): 1}

    def test_full_lane_limits_no_owner(self) -> None:
        lane = new_lane(4)
        run(lane, 4)
        fill(lane, 4)
        assert claim_limits(lane, 0, 100) == {}
        assert claim_size(lane, 0, 100, 0) == 0

    def test_stalled_delete_is_charged_to_its_owner(self) -> None:
        """The jobs behind it in its batch go to other workers."""
        lane = new_lane(4)
        fill(lane, 6, "ab")
        lane.took(0.0001)
        batch = lane.begin(0, 100)
        assert batch is not None
        assert (len(batch), batch.owner) == (6, "a")
        batch.take()
        second = batch.take()
        assert second is not None
        lane.unblock(STALL_SECONDS / 2)
        assert len(lane.backlog) == 0
        lane.unblock(STALL_SECONDS)
        assert (len(lane.backlog), len(batch), batch.owner) == (4, 0, "b")
        assert lane.may_begin(STALL_SECONDS)
        lane.end(batch)
        assert lane.running == 0

    def test_what_waits_behind_a_later_hang_goes_to_others_too(self) -> None:
        """The first one has made the store look slow by then."""
        lane = new_lane(4)
        fill(lane, 12, "ab")
        lane.took(0.0001)
        first, second = lane.begin(0, 6), lane.begin(0, 6)
        assert first is not None
        assert second is not None
        first.take()
        lane.unblock(STALL_SECONDS)
        assert (len(first), lane.delete_seconds >= 0.005) == (0, True)
        second.heard_at = 2 * STALL_SECONDS
        second.take()
        assert lane.may_be_blocked
        lane.unblock(3 * STALL_SECONDS)
        assert len(second) == 0
        assert len(lane.backlog) == 10

    def test_one_hang_counts_once(self) -> None:
        lane = new_lane(4)
        fill(lane, 2, "a")
        lane.took(0.0001)
        batch = lane.begin(0, 1)
        assert batch is not None
        batch.take()
        for number in range(1, 100):
            lane.unblock(number)
            lane.took(0.0001)  # another worker's
        lane.unblock(1000)
        assert lane.delete_seconds == 0.0001


def test_running_never_exceeds_the_pace() -> None:
    lane = new_lane(2)
    fill(lane, 3)
    assert lane.may_begin(0)
    lane.begin(0, 1)
    lane.took(1.0)
    assert lane.may_begin(0)
    lane.begin(0, 1)
    assert not lane.may_begin(0)
    lane.drain()
    assert not lane.may_begin(0)


@given(
    st.integers(1, 6),
    st.lists(
        st.tuples(
            st.floats(0, 3),
            st.sampled_from(
                [None, None, None, GONE, NOT_FOUND, IN_USE, REFUSED, THROTTLED, UNEXPECTED]
            ),
            st.sampled_from("abc"),
        ),
        max_size=150,
    ),
)
def test_concurrency_never_exceeds_the_pace_or_one_probe(
    concurrent: int, happens: list[tuple[float, Verdict | None, str]]
) -> None:
    lane = new_lane(concurrent, 0, 5)
    slots: list[Batch] = []
    now = 0.0
    for seconds, verdict, owner in happens:
        now += seconds
        if verdict is None:
            lane.push(new_job(owner=owner))
            shut = lane.breaker.state is not State.CLOSED
            began = 0
            while lane.may_begin(now):
                slot = lane.begin(now, 1)
                assert slot is not None
                slots.append(slot)
                began += 1
                assert lane.running <= lane.pace.concurrent <= concurrent
            if shut:
                assert began == 0 or lane.running == 1
        elif slots:
            slot = slots.pop(0)
            lane.end(slot)
            lane.answered(verdict, Origin(slot.owner, "p"), now)
    assert lane.running == len(slots)


class TestWorkers:
    """Number of workers of a lane."""

    def begun(self, lane: Lane, now: float = 1.0) -> int:
        """Start as many workers as allowed; returns their number."""
        count = 0
        while lane.may_begin(now):
            assert lane.begin(now, 1) is not None
            count += 1
        return count

    def lane(self, seconds: float | None, images: int = 100) -> Lane:
        lane = new_lane()
        fill(lane, images)
        if seconds is not None:
            lane.took(seconds)
        return lane

    def test_one_worker_starts_until_deletes_are_timed(self) -> None:
        assert self.begun(self.lane(None)) == 1

    @pytest.mark.parametrize(
        ("seconds", "workers"), [(0.00006, 1), (0.001, 2), (0.003, 6), (0.005, 16), (30, 16)]
    )
    def test_workers_match_the_backlog(self, seconds: float, workers: int) -> None:
        assert self.begun(self.lane(seconds)) == workers

    def test_more_workers_start_if_the_first_stalls(self) -> None:
        lane = self.lane(None)
        batch = lane.begin(1, 1)
        assert batch is not None
        batch.take()
        lane.unblock(1 + STALL_SECONDS / 2)
        assert self.begun(lane) == 0
        lane.unblock(1 + STALL_SECONDS)
        assert self.begun(lane) == 15

    def test_another_worker_starts_after_the_first_ends_untimed(self) -> None:
        """For instance if the lease of its image had expired."""
        lane = self.lane(None)
        slot = lane.begin(1, 1)
        assert slot is not None
        assert self.begun(lane) == 0
        lane.end(slot)
        assert self.begun(lane) == 1

    def test_workers_waiting_for_the_rate_do_not_count_as_busy(self) -> None:
        lane = self.lane(0.0001)
        assert self.begun(lane) == 1
        for batch in lane.batches:
            lane.waits(batch)
        assert self.begun(lane) == 1

    def test_faster_deletes_dominate_the_estimate(self) -> None:
        lane = self.lane(0.001)
        lane.took(1.001)
        assert lane.delete_seconds == pytest.approx(0.051)
        lane.took(0.002)
        assert lane.delete_seconds == 0.002

    def test_empty_backlog_starts_no_worker(self) -> None:
        lane = new_lane()
        assert lane.begin(0, 1) is None
        assert lane.running == 0

    @pytest.mark.parametrize("state", [State.HALF_OPEN, State.OPEN, State.FORCED_OPEN])
    def test_probe_is_a_single_job(self, state: State) -> None:
        lane = self.lane(0.0001)
        lane.breaker.state = state
        batch = lane.begin(0, 100)
        assert batch is not None
        assert len(batch) == 1

    @pytest.mark.parametrize(
        ("seconds", "images", "jobs"),
        [
            (None, 100, 1),
            (0.0001, 100, 100),
            (0.001, 100, 50),
            (0.001, 20, 20),
            (0.004, 100, 12),
            (0.005, 100, 1),
            (1, 9, 1),
        ],
    )
    def test_worker_takes_several_fast_jobs(
        self, seconds: float | None, images: int, jobs: int
    ) -> None:
        batch = self.lane(seconds, images).begin(0, 1000)
        assert batch is not None
        assert len(batch) == jobs

    def test_jobs_waiting_for_the_rate_are_counted(self) -> None:
        lane = self.lane(0.001)
        batch = lane.begin(0, 10)
        assert batch is not None
        assert lane.waiting == 0
        lane.waits(batch)
        assert lane.waiting == 10
        lane.slow_down()
        assert lane.waiting == 0
        lane.goes(batch, 0)
        assert lane.waiting == 0
        second = lane.begin(0, 10)
        assert second is not None
        lane.goes(second, 0)
        assert lane.waiting == 0
