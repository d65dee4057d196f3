# SPDX-License-Identifier: Apache-2.0
"""The delay queue against a naive model of it, in dictionaries and lists.

Times are multiples of an eighth of a second, which a float and a whole number of milliseconds both
hold exactly, so the model needs no tolerance.
"""

from collections import Counter
from dataclasses import dataclass
from math import ceil

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from evscrub.queueing.delay_queue import GRANULE_SECONDS, Added, DelayQueue, QueueStatistics, Source
from evscrub.queueing.turns import owner_key
from tests.unit.examples import examples

IDS = [
    *(f"{n:08x}-6b5a-4938-a716-05f4e3d2c1b0" for n in range(8)),
    "0F9E8D7C-6B5A-4938-A716-05F4E3D2C1B0",
    "0f9e8d7c-6b5a-4938-a716-05f4e3d2c1b0",
    "0f9e8d7c6b5a4938a71605f4e3d2c1b0",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "",
    "0",
    "-",
    "an id's as odd as its creator",
    "\N{SNOWMAN}",
]
OWNERS = [None, "a", "b", "c"]
LANES = [None, "fast", "slow"]
EIGHTHS_IN_GRANULE = int(GRANULE_SECONDS * 8)

ids = st.sampled_from(IDS)
lanes = st.sampled_from(LANES)
# Due at once or in a little while, many at the same time; in many buckets; in some month.
offsets = (
    st.sampled_from([-8, 0, 1, 8, 80])
    | st.integers(-5 * EIGHTHS_IN_GRANULE, 20 * EIGHTHS_IN_GRANULE)
    | st.integers(-(30 * 86400 * 8), 30 * 86400 * 8)
)
# Mostly onwards, but an estimate of another clock may go back.
steps = st.integers(0, 100) | st.integers(-100, 5 * EIGHTHS_IN_GRANULE)


@dataclass
class Waiting:
    due: float
    owner: str | None
    lane: str | None
    source: Source


@dataclass
class Ready:
    due: float
    shifted: float  #: by how much the queue was shifted while this was ready
    rank: tuple[int, float]  #: which advance made it ready, and when it was due
    owner: str | None
    lane: str | None
    source: Source


class DelayQueueAgainstModel(RuleBasedStateMachine):
    """Does to both what Hypothesis thinks of, and compares."""

    @initialize(
        capacity=st.integers(1, 6) | st.just(100),
        origin=st.sampled_from([0.0, 1_795_435_200.0, 1_795_435_200.125, -77.5]),
    )
    def begin(self, capacity: int, origin: float) -> None:
        self.queue = DelayQueue(capacity, origin)
        self.capacity = capacity
        self.event_capacity = max(1, capacity - capacity // 4)
        self.now = origin
        self.waiting: dict[str, Waiting] = {}
        self.ready: dict[str, Ready] = {}
        self.taken: dict[str, Waiting | None] = {}
        # Owners in turn, by lane. Those in one set became ready together: any of them may be next.
        self.turns: dict[str | None, list[set[str | None]]] = {lane: [] for lane in LANES}
        self.advances = 0
        self.adds = 0
        self.dropped = 0
        self.dropped_due: float | None = None

    # -- what the caller does

    @rule(
        image_id=ids,
        offset=offsets,
        owner=st.sampled_from(OWNERS),
        lane=lanes,
        source=st.sampled_from(Source),
    )
    def add(
        self, image_id: str, offset: int, owner: str | None, lane: str | None, source: Source
    ) -> None:
        due = self.now + offset / 8
        answer = self.queue.add(image_id, due, owner=owner, lane=lane, source=source)
        asked = Waiting(due, owner, lane, source)
        if image_id in self.taken:
            assert answer is Added.AGAIN
            known = self.taken[image_id]
            if known is None or due < known.due:
                self.taken[image_id] = asked
        else:
            self._added(image_id, asked, answer)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), offset=st.sampled_from([-8, -1, 0, 1, 8]), source=st.sampled_from(Source))
    def add_again(self, data: st.DataObject, offset: int, source: Source) -> None:
        image_id = data.draw(st.sampled_from(sorted(self.waiting)))
        due = self.waiting[image_id].due + offset / 8
        answer = self.queue.add(image_id, due, source=source)
        self._added(image_id, Waiting(due, None, None, source), answer)

    @precondition(lambda self: self.taken)
    @rule(
        data=st.data(),
        offset=offsets,
        owner=st.sampled_from(OWNERS),
        source=st.sampled_from(Source),
    )
    def add_taken(
        self, data: st.DataObject, offset: int, owner: str | None, source: Source
    ) -> None:
        self.add(data.draw(st.sampled_from(sorted(self.taken))), offset, owner, "fast", source)

    @rule(image_id=ids)
    def cancel(self, image_id: str) -> None:
        answer = self.queue.cancel(image_id)
        if image_id in self.taken:
            assert answer == (self.taken[image_id] is not None)
            self.taken[image_id] = None
        elif image_id in self.ready:
            assert answer
            self._unready(image_id)
        else:
            assert answer == (image_id in self.waiting)
            self.waiting.pop(image_id, None)

    @rule(step=steps)
    def advance(self, step: int) -> None:
        self._advance(self.now + step / 8)

    @precondition(lambda self: self.waiting)
    @rule()
    def advance_to_the_next_due_time(self) -> None:
        self._advance(max(self.now, min(entry.due for entry in self.waiting.values())))

    @precondition(lambda self: self.waiting)
    @rule()
    def advance_as_the_queue_asks_for(self) -> None:
        earliest = min(entry.due for entry in self.waiting.values())
        for _ in range(3):
            at = self.queue.next_advance()
            assert at is not None
            self._advance(max(self.now, ceil(at * 8) / 8))
            if self.now >= earliest:
                return
        raise AssertionError("three calls did not get as far as the next due time")

    @rule(
        lane=lanes,
        count=st.integers(0, 8),
        limits=st.dictionaries(st.sampled_from(OWNERS), st.integers(-1, 2), max_size=2),
    )
    def take(self, lane: str | None, count: int, limits: dict[str | None, int]) -> None:
        by_key = {owner_key(owner): most for owner, most in limits.items()}
        taken = self.queue.take(lane, count, by_key)
        ready = Counter(entry.owner for entry in self.ready.values() if entry.lane == lane)
        allowed = sum(min(of, max(0, limits.get(owner, of))) for owner, of in ready.items())
        assert len(taken) == min(count, allowed)
        left = dict(limits)
        for one in taken:
            turns = [
                [owner for owner in turn if left.get(owner, 1) > 0] for turn in self.turns[lane]
            ]
            allowed_now = next(turn for turn in turns if turn)
            entry = self.ready[one.image_id]
            owner = entry.owner
            assert owner in allowed_now
            if owner in left:
                left[owner] -= 1
            assert one.owner == owner_key(owner)
            assert (entry.lane, entry.source) == (lane, one.source)
            assert one.due in {entry.due, entry.due + entry.shifted}
            assert entry.rank == min(other.rank for other in self._ready_of(lane, owner))
            self._unready(one.image_id)
            if self._ready_of(lane, owner):
                # This owner's turn is over, and comes again after everybody else's.
                self._leave_turns(lane, owner)
                self.turns[lane].append({owner})
            self.taken[one.image_id] = None

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        image_id = data.draw(st.sampled_from(sorted(self.taken)))
        self.queue.done(image_id)
        again = self.taken.pop(image_id)
        if again is not None:
            answer = Added.NEW if image_id in self.queue else Added.DROPPED
            self._added(image_id, again, answer)

    @rule(image_id=ids)
    def done_without_taking(self, image_id: str) -> None:
        if image_id not in self.taken:
            try:
                self.queue.done(image_id)
            except KeyError:
                return
            raise AssertionError("what was not taken was done")

    @rule(step=st.integers(-10_000, 10_000))
    def shift(self, step: int) -> None:
        seconds = step / 8
        self.queue.shift(seconds)
        for waiting in self.waiting.values():
            waiting.due += seconds
        for ready in self.ready.values():
            ready.shifted += seconds

    @rule()
    def forget_dropped(self) -> None:
        self.queue.forget_dropped()
        self.dropped_due = None

    # -- what must hold at any time

    @invariant()
    def sizes_agree(self) -> None:
        assert len(self.queue) == len(self.waiting) + len(self.ready) <= self.capacity
        assert self.queue.statistics() == QueueStatistics(
            waiting=len(self.waiting),
            ready=len(self.ready),
            taken=len(self.taken),
            adds=self.adds,
            dropped=self.dropped,
            capacity=self.capacity,
        )

    @invariant()
    def each_id_is_in_one_place(self) -> None:
        for image_id in IDS:
            places = [image_id in place for place in (self.waiting, self.ready, self.taken)]
            assert sum(places) <= 1
            assert (image_id in self.queue) == any(places)

    @invariant()
    def lanes_have_what_is_ready(self) -> None:
        for lane in [*LANES, "no such lane"]:
            ready = sum(entry.lane == lane for entry in self.ready.values())
            assert self.queue.ready(lane) == ready
            assert self.queue.has_ready(lane) == bool(ready)

    @invariant()
    def next_advance_is_in_time(self) -> None:
        at = self.queue.next_advance()
        if self.waiting:
            assert at is not None
            assert at <= min(entry.due for entry in self.waiting.values())
        else:
            assert at is None

    @invariant()
    def what_was_dropped_is_known(self) -> None:
        assert self.queue.dropped_due == self.dropped_due

    def teardown(self) -> None:
        """Take all there is, each image once."""
        if not hasattr(self, "queue"):
            return
        while self.taken:
            image_id = next(iter(self.taken))
            self.taken[image_id] = None
            self.queue.cancel(image_id)
            self.queue.done(image_id)
            del self.taken[image_id]
        self._advance(max([self.now, *(entry.due for entry in self.waiting.values())]))
        assert not self.waiting
        for lane in LANES:
            self.take(lane, len(IDS), {})
        assert not self.ready
        assert len(self.queue) == 0

    # -- the model

    def _added(self, image_id: str, asked: Waiting, answer: Added) -> None:
        """Follow the add of an image that is not taken."""
        if image_id in self.ready:
            assert answer is Added.KNOWN
            if asked.source is Source.EVENT:
                self.ready[image_id].source = Source.EVENT
            return
        if image_id in self.waiting:
            known = self.waiting[image_id]
            assert answer is (Added.EARLIER if asked.due < known.due else Added.KNOWN)
            if asked.source is Source.EVENT:
                known.source = Source.EVENT
                if asked.due < known.due:
                    known.owner, known.lane = asked.owner, asked.lane
            known.due = min(known.due, asked.due)
            return
        candidates = self.waiting | {image_id: asked}
        entries: list[Waiting | Ready] = [*self.waiting.values(), *self.ready.values()]
        events = sum(entry.source is Source.EVENT for entry in entries)
        from_event = asked.source is Source.EVENT
        if len(entries) < self.capacity and not (from_event and events >= self.event_capacity):
            assert answer is Added.NEW
        else:
            gone = [one for one in candidates if one not in self.queue]
            assert len(gone) == 1
            assert (answer is Added.DROPPED) == (gone == [image_id])
            lost = candidates.pop(gone[0])
            last = max((entry.due for entry in candidates.values()), default=lost.due)
            if from_event:
                assert lost.source is Source.EVENT
            # An event that finds what a sweep brought in its way is lost itself.
            sweeps = {entry.due for entry in candidates.values() if entry.source is Source.SWEEP}
            spared = from_event and any(due > last - GRANULE_SECONDS for due in sweeps)
            assert lost.due > last - GRANULE_SECONDS or spared
            self.dropped += 1
            if self.dropped_due is None or lost.due < self.dropped_due:
                self.dropped_due = lost.due
        if answer is not Added.DROPPED:
            assert answer is Added.NEW
            self.adds += 1
        self.waiting = candidates

    def _advance(self, now: float) -> None:
        self.now = now
        due = sorted(
            (item for item in self.waiting.items() if item[1].due <= now),
            key=lambda item: item[1].due,
        )
        assert self.queue.advance(now) == len(due)
        self.advances += 1
        joined: dict[tuple[str | None, float], set[str | None]] = {}
        for image_id, entry in due:
            if not self._ready_of(entry.lane, entry.owner):
                together = joined.setdefault((entry.lane, entry.due), set())
                if not together:
                    self.turns[entry.lane].append(together)
                together.add(entry.owner)
            rank = (self.advances, entry.due)
            del self.waiting[image_id]
            self.ready[image_id] = Ready(
                entry.due, 0.0, rank, entry.owner, entry.lane, entry.source
            )
        after = self.queue.next_advance()
        assert after is None or after > now  # or else who waits for it spins

    def _ready_of(self, lane: str | None, owner: str | None) -> list[Ready]:
        return [one for one in self.ready.values() if (one.lane, one.owner) == (lane, owner)]

    def _unready(self, image_id: str) -> None:
        entry = self.ready.pop(image_id)
        if not self._ready_of(entry.lane, entry.owner):
            self._leave_turns(entry.lane, entry.owner)

    def _leave_turns(self, lane: str | None, owner: str | None) -> None:
        for together in self.turns[lane]:
            together.discard(owner)
        self.turns[lane] = [together for together in self.turns[lane] if together]


TestDelayQueueAgainstModel = DelayQueueAgainstModel.TestCase
TestDelayQueueAgainstModel.settings = settings(max_examples=examples(100), stateful_step_count=60)
