# SPDX-License-Identifier: Apache-2.0
"""The delay queue: limits, memory, fairness in plain examples, and times of any fraction."""

import gc
import multiprocessing
import random
import resource
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.queueing.delay_queue import MAX_CAPACITY, Added, DelayQueue, Source, Taken
from evscrub.queueing.image_key import unpack
from evscrub.queueing.turns import LANE_BITS, OWNER_BITS, Turns, owner_key

NOW = 1_795_435_200.0
ENTRIES = 300_000
MINUTE, HOUR, MONTH = 60, 3600, 30 * 86400


@pytest.mark.parametrize("capacity", [-1, 0, MAX_CAPACITY + 1])
def test_a_capacity_out_of_range_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity"):
        DelayQueue(capacity)


@pytest.mark.parametrize("capacity", [1, MAX_CAPACITY])
def test_a_capacity_at_the_ends_of_the_range_is_taken(capacity: int) -> None:
    assert DelayQueue(capacity).capacity == capacity


def test_a_tenant_with_many_images_does_not_hold_up_one_with_few() -> None:
    queue = DelayQueue(1000)
    for number in range(100):
        queue.add(f"flood-{number}", number / 1000, owner="flood")
    for owner in "abc":
        queue.add(f"only-{owner}", 1, owner=owner)
    queue.advance(1)
    first = [taken.image_id for taken in queue.take(None, 4)]
    assert first[0] == "flood-0"
    assert set(first[1:]) == {"only-a", "only-b", "only-c"}
    assert [taken.image_id for taken in queue.take(None, 2)] == ["flood-1", "flood-2"]


def test_lanes_do_not_take_each_others_turns() -> None:
    queue = DelayQueue(10)
    queue.add("1", 0, owner="a", lane="fast")
    queue.add("2", 0, owner="a", lane="slow")
    assert queue.advance(0) == 2
    assert queue.take("slow", 5) == [Taken("2", owner_key("a"), 0, Source.EVENT)]
    assert queue.take("fast", 5) == [Taken("1", owner_key("a"), 0, Source.EVENT)]


def test_an_image_that_comes_again_during_work_waits_for_its_end() -> None:
    queue = DelayQueue(10)
    queue.add("1", 5, owner="a")
    queue.advance(5)
    queue.take(None, 1)
    assert queue.add("1", 9, owner="b", lane="slow", source=Source.SWEEP) is Added.AGAIN
    assert queue.add("1", 8, owner="c", lane="fast", source=Source.SWEEP) is Added.AGAIN
    assert queue.add("1", 9, owner="d") is Added.AGAIN
    assert queue.advance(100) == 0
    queue.done("1")
    assert queue.advance(7) == 0
    assert queue.advance(8) == 1
    assert queue.take("fast", 5) == [Taken("1", owner_key("c"), 8, Source.SWEEP)]


def test_lanes_are_counted() -> None:
    turns = Turns()
    for number in range(1 << LANE_BITS):
        turns.group(number, 1)
    assert turns.group(0, 2) == 2
    with pytest.raises(ValueError, match="lanes"):
        turns.group("one more", 1)


def test_a_key_that_looks_like_another_is_another() -> None:
    queue = DelayQueue(10)
    lower = "0f9e8d7c-6b5a-4938-a716-05f4e3d2c1b0"
    spellings = [lower, lower.upper(), lower.replace("-", "")]
    for spelling in spellings:
        assert queue.add(spelling, 0) is Added.NEW
    queue.advance(0)
    assert [taken.image_id for taken in queue.take(None, 5)] == spellings


def test_a_full_queue_of_ready_images_turns_away_what_is_new() -> None:
    queue = DelayQueue(1)
    queue.add("1", 0)
    queue.advance(0)
    assert queue.add("2", 7) is Added.DROPPED
    assert queue.dropped_due == 7
    queue.forget_dropped()
    assert queue.dropped_due is None
    assert queue.take(None, 2)[0].image_id == "1"


def test_what_is_due_last_makes_room() -> None:
    queue = DelayQueue(2)
    queue.add("late", 100)
    queue.advance(50)
    queue.add("early", -1000)
    assert queue.add("new", 0) is Added.NEW
    assert "late" not in queue
    assert queue.dropped_due == 100
    assert queue.add("even later", 99) is Added.DROPPED
    assert queue.dropped_due == 99
    assert queue.advance(0) == 2


@pytest.mark.parametrize("due", [-1000, 1000], ids=["ready", "waiting"])
def test_events_leave_room_for_what_sweeps_find(due: float) -> None:
    queue = DelayQueue(100)
    answers = [queue.add(f"forged {number}", due, owner=str(number)) for number in range(200)]
    assert answers.count(Added.NEW) == 75
    assert queue.dropped_due == due
    queue.advance(0)
    for number in range(25):
        assert queue.add(f"found {number}", 5000, source=Source.SWEEP) is Added.NEW
    # And what came in keeps its place.
    assert queue.add("forged", -1000) is Added.DROPPED if due < 0 else Added.NEW
    assert all(f"found {number}" in queue for number in range(25))
    assert len(queue) == 100


def test_an_event_makes_room_where_an_event_is_due_last() -> None:
    queue = DelayQueue(4)
    for number in range(3):
        queue.add(f"late {number}", 1000 + 1000 * number)
    assert queue.add("early", 10) is Added.NEW
    assert "late 2" not in queue
    assert queue.add("later still", 9000, source=Source.SWEEP) is Added.NEW
    assert queue.add("earlier", 5) is Added.DROPPED  # what is due last is the sweep's
    assert queue.statistics().dropped == 2


def test_what_a_sweep_found_and_an_event_tells_too_counts_as_an_event() -> None:
    queue = DelayQueue(4)
    for number in range(4):
        queue.add(str(number), 50, source=Source.SWEEP)
        queue.add(str(number), 50)
    assert queue.add("5", 60) is Added.DROPPED
    queue.cancel("0")
    queue.advance(50)
    queue.take(None, 4)
    assert [queue.add(str(number), 70) for number in range(6, 10)] == [Added.NEW] * 3 + [
        Added.DROPPED
    ]


@given(st.text() | st.none())
def test_an_owner_is_told_by_a_few_bits(owner: str | None) -> None:
    key = owner_key(owner)
    assert 0 <= key < 1 << OWNER_BITS
    assert owner_key(key) == key


def test_owners_that_are_gone_are_forgotten() -> None:
    queue = DelayQueue(10)
    for number in range(100):
        owner = f"tenant-{number}"
        for image_id in ("taken", "cancelled", "made ready and cancelled"):
            queue.add(image_id, number, owner=owner)
        queue.cancel("cancelled")
        queue.advance(number)
        queue.cancel("made ready and cancelled")
        assert [taken.owner for taken in queue.take(None, 10)] == [owner_key(owner)]
        queue.done("taken")
    assert not list(queue._turns.queues())


small_fractions = st.integers(-30, 30).map(lambda units: units / 10_000)


@given(
    st.lists(small_fractions | st.floats(-1e5, 1e7), min_size=1, max_size=20),
    small_fractions | st.floats(-1e5, 1e7),
)
def test_whatever_the_fraction_nothing_is_early_or_a_millisecond_late(
    offsets: list[float], step: float
) -> None:
    queue = DelayQueue(100, origin=NOW)
    rounding = 1e-6  # of seconds since the epoch in a float
    for number, offset in enumerate(offsets):
        queue.add(str(number), NOW + offset)
    now = NOW + step
    queue.advance(now)
    ready = {int(taken.image_id) for taken in queue.take(None, 100)}
    for number, offset in enumerate(offsets):
        if number in ready:
            assert NOW + offset <= now + rounding
        else:
            assert NOW + offset > now - 0.001 - rounding


@pytest.mark.costly
@pytest.mark.parametrize(
    ("spread", "owners"), [(MINUTE, 1000), (HOUR, 1000), (MONTH, 1000), (MONTH, ENTRIES)]
)
def test_an_entry_takes_at_most_150_bytes(spread: float, owners: int) -> None:
    # In a process of its own, which has no freed memory to use first.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as executor:
        waiting, ready = executor.submit(_bytes_an_entry, spread, owners).result()
    assert 0 < waiting <= 150
    # And when all of it is ready, as after a long time without a registry; what the buckets took
    # does not all go back to the system. At most 16,384 owners have a queue of their own.
    assert 0 < ready <= (160 if owners == 1000 else 200)


def _bytes_an_entry(spread: float, owners: int) -> tuple[float, float]:
    """By how much the process grows for each entry; while all wait, and when all are ready."""
    rng = random.Random(spread)
    numbers = [rng.getrandbits(128) for _ in range(ENTRIES)]  # a list of texts would be shared
    dues = [NOW + rng.random() * spread for _ in range(ENTRIES)]
    gc.collect()
    before = _resident_bytes()
    queue = DelayQueue(2 * ENTRIES, origin=NOW)
    for at, number in enumerate(numbers):
        # Each owner has a text of its own, as each notification does.
        queue.add(unpack(number), dues[at], owner=f"{at % owners:0255}")
    waiting = _resident_bytes()
    assert queue.statistics().waiting == ENTRIES
    assert queue.advance(NOW + spread) == ENTRIES
    ready = _resident_bytes()
    return (waiting - before) / ENTRIES, (ready - before) / ENTRIES


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


A = owner_key("a")


def keys(owners: str) -> list[int]:
    return [owner_key(owner) for owner in owners]


class TestLimitsOfOwners:
    """How many images of some owners may be taken."""

    def queue(self, owners: str) -> DelayQueue:
        queue = DelayQueue(100)
        for number, owner in enumerate(owners):
            queue.add(str(number), number / 1000, owner=owner, lane="s")
        queue.advance(1)
        return queue

    def test_others_are_taken_in_turn(self) -> None:
        queue = self.queue("aaabbc")
        assert [t.owner for t in queue.take("s", 9, {A: 0})] == keys("bcb")
        assert queue.ready("s") == 3

    def test_no_more_than_the_limit(self) -> None:
        queue = self.queue("aaabbc")
        assert [t.owner for t in queue.take("s", 9, {A: 1, owner_key("b"): -2})] == keys("ac")

    def test_one_who_was_passed_over_keeps_the_turn(self) -> None:
        queue = self.queue("abcabc")
        assert [t.owner for t in queue.take("s", 2, {A: 0})] == keys("bc")
        assert [t.owner for t in queue.take("s", 9)] == keys("abca")

    def test_ready_is_what_can_be_taken(self) -> None:
        queue = self.queue("aab")
        assert queue.has_ready("s", {A: 0})
        assert queue.has_ready("s", {owner_key("b"): 0})
        assert queue.has_ready("s", {A: 1, owner_key("b"): -2})
        assert not queue.has_ready("s", {A: 0, owner_key("b"): -2})
        queue.take("s", 1, {A: 0})
        assert not queue.has_ready("s", {A: 0})
        assert queue.has_ready("s", {owner_key(None): 0})
        assert not queue.has_ready("t", {A: 1})


class TestQuestions:
    def test_the_oldest_that_is_ready(self) -> None:
        queue = DelayQueue(100)
        assert queue.oldest_ready() is None
        for number, due in enumerate((5.0, 3.0, 400.0, 4.0)):
            queue.add(str(number), due, owner=str(number % 2), lane=str(number))
        queue.advance(10)
        assert queue.oldest_ready() == 3.0
        queue.take("1", 1)
        assert queue.oldest_ready() == 4.0

    def test_the_last_that_is_due(self) -> None:
        queue = DelayQueue(100, origin=1000)
        assert queue.last_due() is None
        queue.add("a", 1005)
        queue.add("b", 2000)
        last = queue.last_due()
        assert last is not None
        assert 2000 <= last <= 2000 + 132
        queue.advance(1999)
        assert queue.last_due() == 2000

    @pytest.mark.parametrize("width", [1.0, 60.0, 131.072, 600.0])
    def test_a_forecast_counts_each_image_in_its_span(self, width: float) -> None:
        queue = DelayQueue(1000)
        dues = [number * 7.3 for number in range(300)]
        for number, due in enumerate(dues):
            queue.add(str(number), due)
        queue.advance(500)
        counts = queue.forecast(500, width, 40)
        waiting = [due for due in dues if due > 500]
        assert sum(counts) == len(waiting)
        exact = [0] * 40
        for due in waiting:
            exact[min(39, int((due - 500) // width))] += 1
        if width < 131:
            assert counts == exact
        else:  # by bucket: never later than in truth, and by less than a span
            for span in range(1, 40):
                assert sum(counts[:span]) >= sum(exact[:span])
                assert sum(counts[: span - 1]) <= sum(exact[:span])
