# SPDX-License-Identifier: Apache-2.0
"""How many images of a lane are claimed ahead, and in which order."""

from __future__ import annotations

import pytest

from evscrub.domain.evidence import Origin
from evscrub.domain.verdict import GONE
from evscrub.flow_control.circuit_breaker import FAILURES, State
from evscrub.queueing.delay_queue import Source, Taken
from evscrub.queueing.turns import owner_key
from evscrub.scrubbing.claim_ahead import claim_size
from evscrub.scrubbing.claiming import Again
from evscrub.scrubbing.lane import Lane
from tests.unit.scrubbing.test_lane import THROTTLED, UNEXPECTED, answers, fill, new_lane, run
from tests.unit.world import new_job


class TestClaimOrder:
    def test_failed_images_come_second_without_starving(self) -> None:
        orders = [new.claiming.order(is_closed=True) for new in [new_lane()] for _ in range(8)]
        assert orders.count((("s", True), (Again("s"), True))) == 6
        assert orders.count(((Again("s"), True), ("s", True))) == 2

    def test_stopped_owners_probe_last_without_starving(self) -> None:
        lane = new_lane()
        answers(lane, UNEXPECTED, FAILURES)
        is_closed = lane.breaker.state is State.CLOSED
        orders = [lane.claiming.order(is_closed=is_closed) for _ in range(8)]
        all_owners = (("s", True), (Again("s"), True))
        assert orders.count((("s", False), (Again("s"), False), *all_owners)) == 6
        assert orders.count(all_owners) == 2


def takes(count: int) -> list[Taken]:
    return [
        Taken(str(number), owner_key(f"o{number}"), 0.0, Source.EVENT) for number in range(count)
    ]


class TestClaimSize:
    def test_fills_the_free_slots(self) -> None:
        assert claim_size(new_lane(16), 0, 100, 0) == 16

    def test_is_zero_while_enough_is_claimed(self) -> None:
        lane = new_lane(4)
        run(lane, 4)
        assert claim_size(lane, 0, 100, 0) == 0

    def test_is_at_most_a_batch(self) -> None:
        assert claim_size(new_lane(1000), 0, 100, 0) == 100

    def test_claims_ahead_for_a_fast_store(self) -> None:
        lane = new_lane(4)
        for number in range(2000):
            lane.answered(GONE, Origin("o", "p"), number / 200)
        run(lane, 4)
        assert claim_size(lane, 10, 100, 0) == pytest.approx(50, abs=2)

    def test_claims_all_that_fall_due_at_a_time_if_deletes_are_fast(self) -> None:
        lane = new_lane(4)
        lane.took(0.001)
        assert claim_size(lane, 0, 100, 0) == 100
        lane.took(0.001)
        answers(lane, THROTTLED, FAILURES)
        assert claim_size(lane, 10, 100, 0) == 1

    def test_claims_for_the_workers_if_deletes_are_slow(self) -> None:
        lane = new_lane(4)
        lane.took(0.02)
        assert claim_size(lane, 0, 100, 0) == 4

    @pytest.mark.parametrize(("rate", "store_rate"), [(20, 0), (0, 20), (20, 400), (400, 20)])
    def test_claims_a_quarter_second_of_work_under_a_rate(
        self, rate: float, store_rate: float
    ) -> None:
        assert claim_size(new_lane(64, store_rate), 0, 100, rate) == 5

    @pytest.mark.parametrize(("seconds", "size"), [(0.01, 5), (0.5, 25), (5.0, 205), (3600.0, 205)])
    def test_claims_more_if_claims_take_long(self, seconds: float, size: int) -> None:
        lane = new_lane(500, 20)
        for _ in range(20):
            lane.claiming.took(seconds)
        assert claim_size(lane, 0, 500, 0) == pytest.approx(size, abs=1)
        for _ in range(10):
            lane.claiming.took(0.01)
        assert claim_size(lane, 0, 500, 0) == 5

    def test_claims_at_least_one_under_a_low_rate(self) -> None:
        assert claim_size(new_lane(64, 0.1), 0, 100, 0) == 1

    def test_claims_one_for_a_probe(self) -> None:
        lane = new_lane()
        answers(lane, THROTTLED, FAILURES)
        assert claim_size(lane, 0.05, 100, 0) == 0
        assert claim_size(lane, 10, 100, 0) == 1
        lane.push(new_job())
        assert claim_size(lane, 10, 100, 0) == 0
        assert lane.begin(10, 1) is not None
        assert claim_size(lane, 10, 100, 0) == 0

    def test_allows_a_second_claim_while_one_waits(self) -> None:
        lane = self.busy_lane()
        assert claim_size(lane, 10, 100, 0) == 100
        lane.claiming.begins(takes(90), 0)
        assert claim_size(lane, 10, 100, 0) == 100
        lane.claiming.begins(takes(10), 0)
        assert claim_size(lane, 10, 100, 0) == 0
        lane.claiming.ends(takes(90), 90)
        fill(lane, 90)
        assert claim_size(lane, 10, 100, 0) == 100
        lane.push(new_job())
        assert claim_size(lane, 10, 100, 0) == 0

    def busy_lane(self) -> Lane:
        """Return a lane with fast deletes and no free slot."""
        lane = new_lane(4)
        for number in range(20_000):
            lane.answered(GONE, Origin("o", "p"), number / 2000)
        run(lane, 4)
        return lane

    def test_claims_a_probe_once(self) -> None:
        lane = new_lane()
        answers(lane, THROTTLED, FAILURES)
        assert claim_size(lane, 10, 100, 0) == 1
        lane.claiming.begins(takes(1), 0)
        assert claim_size(lane, 10, 100, 0) == 0

    def test_asks_for_more_if_other_agents_claim_the_same_images(self) -> None:
        lane = new_lane(8)
        for got, size in ((8, 8), (4, 11), (0, 22), (0, 43), (0, 86), (0, 100)):
            lane.claiming.begins(takes(8), 0)
            lane.claiming.ends(takes(8), got)
            assert claim_size(lane, 0, 100, 0) == size
        for _ in range(100):
            lane.claiming.begins(takes(100), 0)
            lane.claiming.ends(takes(100), 0)
        lane.claiming.begins(takes(100), 0)
        lane.claiming.ends(takes(100), 100)
        assert claim_size(lane, 0, 100, 0) == 16

    def test_asks_for_no_more_than_the_rate_allows(self) -> None:
        lane = new_lane(8, 40)
        lane.claiming.begins(takes(8), 0)
        lane.claiming.ends(takes(8), 1)
        assert claim_size(lane, 0, 100, 0) == 8

    def test_claims_nothing_in_a_paused_store(self) -> None:
        lane = new_lane()
        lane.breaker.force_open("x")
        assert claim_size(lane, 1e9, 100, 0) == 0
