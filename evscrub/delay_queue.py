# SPDX-License-Identifier: Apache-2.0
"""The delay queue: which images wait, which are ready, and whose turn it is.

Pure: no I/O, no clock, no locks. Times are seconds on whatever axis the caller uses, as long as it
is one axis. An image is in exactly one place:

* *waiting* until its due time, in a bucket of :data:`GRANULE_SECONDS`; only the bucket that is
  under way is kept sorted, so that an add costs the same however many images wait;
* *ready*, in its lane, dealt round-robin by owner;
* *taken* by a worker. An image that is added again while it is taken waits for
  :meth:`DelayQueue.done`, so it is never worked on twice at once.

An entry is one integer (due time, source, group) under one integer key, about 130 bytes with its
share of dictionary and bucket, because a registry can hold a million pending images.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from math import ceil, floor

from evscrub.image_key import ImageKey, pack, unpack

__all__ = [
    "GRANULE_SECONDS",
    "MAX_CAPACITY",
    "Added",
    "DelayQueue",
    "Source",
    "Statistics",
    "Taken",
]

_GRANULE_BITS = 17
#: Width of a bucket of waiting images.
GRANULE_SECONDS = (1 << _GRANULE_BITS) / 1000

# An entry, low bits first: group, source, ready, due in milliseconds from the queue's origin, which
# may be negative. Due within 198 days keeps the integer at 32 bytes; beyond that only memory grows.
_GROUP_BITS = 24
_GROUP_MASK = (1 << _GROUP_BITS) - 1
#: Every waiting image could have an owner of its own.
MAX_CAPACITY = _GROUP_MASK
_EVENT = 1 << _GROUP_BITS
_READY = 1 << (_GROUP_BITS + 1)
_DUE_SHIFT = _GROUP_BITS + 2


class Source(Enum):
    """What brought an image into the queue."""

    EVENT = "event"
    SWEEP = "sweep"


class Added(Enum):
    """What became of an add."""

    NEW = "new"  #: The image was not known and now waits.
    EARLIER = "earlier"  #: It was waiting and now waits less.
    KNOWN = "known"  #: It was waiting or ready already, no later than asked.
    AGAIN = "again"  #: It is being worked on and will wait again after that.
    DROPPED = "dropped"  #: The queue is full and nothing in it is due later.


# Members of an enumeration take a while to look up.
_FROM_EVENT = Source.EVENT
_NEW = Added.NEW


@dataclass(frozen=True, slots=True)
class Taken:
    """An image handed out for work."""

    image_id: str
    owner: str | None
    due: float  #: when it fell due, seconds on the queue's axis
    source: Source


@dataclass(frozen=True, slots=True)
class Statistics:
    """Sizes and counts of a queue."""

    waiting: int
    ready: int
    taken: int
    adds: int  #: images that entered, ever
    dropped: int  #: images that a full queue turned away, ever


@dataclass(slots=True)
class _Again:
    due: float
    owner: str | None
    lane: Hashable
    source: Source


class _Lane:
    """Ready images of one lane: a queue for each owner, and the owners in turn."""

    __slots__ = ("by_group", "turns")

    def __init__(self) -> None:
        self.by_group: dict[int, deque[ImageKey]] = {}
        self.turns: deque[int] = deque()


class DelayQueue:
    """A bounded, deduplicating delay queue, fair by owner within each lane.

    :param capacity: how many images may wait or be ready, from 1 to :data:`MAX_CAPACITY`. A full
        queue turns away what is due last, to within :data:`GRANULE_SECONDS`; see
        :attr:`dropped_due`.
    :param first_lane: the lane of what is added without one.
    :param origin: a time near the first due times, seconds; small differences take less memory.
    """

    def __init__(self, capacity: int, origin: float = 0.0, first_lane: Hashable = None) -> None:
        if not 1 <= capacity <= MAX_CAPACITY:
            raise ValueError(f"capacity must be from 1 to {MAX_CAPACITY}, not {capacity}")
        self.capacity = capacity
        #: The earliest due time that a full queue turned away, until :meth:`forget_dropped`.
        self.dropped_due: float | None = None
        self._origin = origin
        self._first_lane = first_lane
        self._entries: dict[ImageKey, int] = {}
        self._far: dict[int, list[ImageKey]] = {}
        self._far_order: list[int] = []  # bucket numbers, ascending
        self._near: list[ImageKey] = []  # by due time; those before _near_start are gone
        self._near_start = 0
        self._near_bucket = -(1 << 63)  # buckets up to this one are in _near
        self._lanes: dict[Hashable, _Lane] = {}
        self._taken: dict[ImageKey, _Again | None] = {}
        self._groups: dict[tuple[Hashable, str | None], int] = {}
        self._group_names: list[tuple[Hashable, str | None]] = []
        self._group_sizes: list[int] = []
        self._free_groups: list[int] = []
        self._ready = 0
        self._left = 0  # images that were in it and are not, ever; an add is to cost little
        self._dropped = 0

    # -- asking

    def __len__(self) -> int:
        """How many images wait or are ready."""
        return len(self._entries)

    def __contains__(self, image_id: str) -> bool:
        """Whether the image waits, is ready or is being worked on."""
        key = pack(image_id)
        return key in self._entries or key in self._taken

    @property
    def statistics(self) -> Statistics:
        return Statistics(
            waiting=len(self._entries) - self._ready,
            ready=self._ready,
            taken=len(self._taken),
            adds=self._left + len(self._entries),
            dropped=self._dropped,
        )

    def ready(self, lane: Hashable) -> int:
        """How many images are ready in `lane`."""
        found = self._lanes.get(lane)
        return 0 if found is None else sum(map(len, found.by_group.values()))

    def has_ready(self, lane: Hashable) -> bool:
        """Whether an image is ready in `lane`."""
        found = self._lanes.get(lane)
        return found is not None and bool(found.turns)

    def lanes(self) -> list[Hashable]:
        """The lanes that an image is ready in."""
        return [name for name, lane in self._lanes.items() if lane.turns]

    def has_ready_of_others(self, lane: Hashable, owner: str | None) -> bool:
        """Whether an image of another owner is ready in `lane`."""
        found = self._lanes.get(lane)
        # No owner has two turns.
        turns = () if found is None else islice(found.turns, 2)
        return any(self._group_names[group][1] != owner for group in turns)

    def is_taken(self, image_id: str) -> bool:
        """Whether the image is being worked on."""
        return pack(image_id) in self._taken

    def next_advance(self) -> float | None:
        """When to call :meth:`advance` next; None when nothing waits.

        Never after the next due time; before it when the bucket of that has not been sorted yet.
        """
        if self._near_start < len(self._near):
            return self._time(self._entries[self._near[self._near_start]])
        if self._far_order:
            return self._origin + self._far_order[0] * GRANULE_SECONDS
        return None

    def oldest_ready(self) -> float | None:
        """When the image fell due that has been ready longest; looks at all that are ready."""
        firsts = [
            min(map(self._entries.__getitem__, queue))
            for lane in self._lanes.values()
            for queue in lane.by_group.values()
        ]
        return self._time(min(firsts)) if firsts else None

    def last_due(self) -> float | None:
        """When the last waiting image falls due, to within :data:`GRANULE_SECONDS` after."""
        if self._far_order:
            return self._origin + (self._far_order[-1] + 1) * GRANULE_SECONDS
        if self._near_start < len(self._near):
            return self._time(self._entries[self._near[-1]])
        return None

    def forecast(self, start: float, width: float, count: int) -> list[int]:
        """Count waiting images by when they fall due.

        :param start: where the first of `count` spans begins, each `width` seconds; what is due
            before that counts as in the first, what is due after all of them as in the last.
            Spans of :data:`GRANULE_SECONDS` or more are counted by bucket, so that an image may
            count as in the span before its own; shorter ones look at every image.
        """
        spans = [0] * count

        def put(due: float, images: int) -> None:
            spans[min(count - 1, max(0, floor((due - start) / width)))] += images

        for key in self._near[self._near_start :]:
            put(self._time(self._entries[key]), 1)
        for number, bucket in self._far.items():
            if width >= GRANULE_SECONDS:
                put(self._origin + number * GRANULE_SECONDS, len(bucket))
                continue
            for key in bucket:
                put(self._time(self._entries[key]), 1)
        return spans

    # -- putting in and taking out

    def add(
        self,
        image_id: str,
        due: float,
        *,
        owner: str | None = None,
        lane: Hashable = None,
        source: Source = Source.EVENT,
    ) -> Added:
        """Let an image wait until `due`; one that is known already keeps its earliest time.

        :param due: seconds on the queue's axis; what is past is ready at the next :meth:`advance`.
        :param owner: whose turn it takes.
        :param lane: which lane it becomes ready in; None for the first lane.
        """
        key = pack(image_id)
        if lane is None:
            lane = self._first_lane
        if key in self._taken:
            again = self._taken[key]
            if again is None or due < again.due:
                self._taken[key] = _Again(due, owner, lane, source)
            return Added.AGAIN
        due_ms = ceil((due - self._origin) * 1000)
        entries = self._entries
        if (known := entries.get(key)) is not None:
            return self._add_known(key, known, due_ms, source)
        if len(entries) >= self.capacity and not self._make_room(due_ms):
            return Added.DROPPED
        group = self._groups.get((lane, owner))
        if group is None:
            group = self._new_group((lane, owner))
        self._group_sizes[group] += 1
        entry = due_ms << _DUE_SHIFT | group
        if source is _FROM_EVENT:
            entry |= _EVENT
        # What self._link() does for most, without the call: this is what a storm of events costs.
        bucket = self._far.get(due_ms >> _GRANULE_BITS)
        if bucket is None:
            self._link(key, entry)
        else:
            entries[key] = entry
            bucket.append(key)
        return _NEW

    def cancel(self, image_id: str) -> bool:
        """Forget an image, and that it was to come again if it is taken.

        :returns: whether there was anything to forget.
        """
        key = pack(image_id)
        if key in self._entries:
            self._remove(key)
            return True
        if self._taken.get(key) is not None:
            self._taken[key] = None
            return True
        return False

    def advance(self, now: float) -> int:
        """Make ready what is due at `now`; returns how many images that were."""
        now_ms = floor((now - self._origin) * 1000)
        moved = 0
        while True:
            near, entries = self._near, self._entries
            start = at = self._near_start
            while at < len(near) and entries[near[at]] >> _DUE_SHIFT <= now_ms:
                self._make_ready(near[at])
                at += 1
            moved += at - start
            if at * 2 > len(near):  # what is gone is let go for less than one move an image
                del near[:at]
                at = 0
            self._near_start = at
            if near or not self._far_order or self._far_order[0] > now_ms >> _GRANULE_BITS:
                return moved
            self._near_bucket = self._far_order.pop(0)
            self._near = self._far.pop(self._near_bucket)
            self._near.sort(key=entries.__getitem__)

    def take(
        self, lane: Hashable, count: int, at_most: Mapping[str | None, int] | None = None
    ) -> list[Taken]:
        """Hand out up to `count` ready images of `lane`, one of each owner in turn.

        Each must come back by :meth:`done`.

        :param at_most: how many images of some owners; an owner who gets none keeps the turn.
        """
        found = self._lanes.get(lane)
        taken: list[Taken] = []
        left = dict(at_most or ())
        passed: list[int] = []
        while found is not None and found.turns and len(taken) < count:
            group = found.turns.popleft()
            owner = self._group_names[group][1]
            if left and owner in left:
                if left[owner] <= 0:
                    passed.append(group)
                    continue
                left[owner] -= 1
            queue = found.by_group[group]
            key = queue.popleft()
            if queue:
                found.turns.append(group)
            else:
                del found.by_group[group]
            entry = self._entries.pop(key)
            self._left += 1
            self._leave_group(group)
            self._ready -= 1
            self._taken[key] = None
            source = Source.EVENT if entry & _EVENT else Source.SWEEP
            taken.append(Taken(unpack(key), owner, self._time(entry), source))
        if found is not None and passed:
            found.turns.extendleft(reversed(passed))
        return taken

    def done(self, image_id: str) -> None:
        """End the work on an image; if it was added meanwhile it waits again from here.

        :raises KeyError: the image is not taken.
        """
        again = self._taken.pop(pack(image_id))
        if again is not None:
            self.add(image_id, again.due, owner=again.owner, lane=again.lane, source=again.source)

    def shift(self, seconds: float) -> None:
        """Move the due time of all that waits, later or (negative) earlier, at no cost."""
        self._origin += seconds

    def forget_dropped(self) -> None:
        """Take note that somebody looks after what was turned away."""
        self.dropped_due = None

    # -- inside

    def _due(self, key: ImageKey) -> int:
        return self._entries[key] >> _DUE_SHIFT

    def _time(self, entry: int) -> float:
        return self._origin + (entry >> _DUE_SHIFT) / 1000

    def _add_known(self, key: ImageKey, entry: int, due_ms: int, source: Source) -> Added:
        bits = _EVENT if source is Source.EVENT else entry & _EVENT
        if entry & _READY or due_ms >= entry >> _DUE_SHIFT:
            self._entries[key] = entry | bits
            return Added.KNOWN
        self._unlink(key, entry)
        self._link(key, (due_ms << _DUE_SHIFT) | bits | (entry & _GROUP_MASK))
        return Added.EARLIER

    def _link(self, key: ImageKey, entry: int) -> None:
        """Put a waiting entry where its due time says."""
        self._entries[key] = entry
        number = entry >> (_DUE_SHIFT + _GRANULE_BITS)
        if number <= self._near_bucket:
            insort(self._near, key, lo=self._near_start, key=self._due)
            return
        bucket = self._far.get(number)
        if bucket is None:
            self._far[number] = [key]
            insort(self._far_order, number)
        else:
            bucket.append(key)

    def _unlink(self, key: ImageKey, entry: int) -> None:
        """Take a waiting entry out of its bucket."""
        number = entry >> (_DUE_SHIFT + _GRANULE_BITS)
        if number <= self._near_bucket:
            at = bisect_left(self._near, entry >> _DUE_SHIFT, lo=self._near_start, key=self._due)
            del self._near[self._near.index(key, at)]
            return
        bucket = self._far[number]
        # Order within a bucket does not matter, so the last one fills the gap.
        last = bucket.pop()
        if last != key:
            bucket[bucket.index(key)] = last
        if not bucket:
            self._drop_bucket(number)

    def _drop_bucket(self, number: int) -> None:
        del self._far[number]
        del self._far_order[bisect_left(self._far_order, number)]

    def _remove(self, key: ImageKey) -> None:
        entry = self._entries[key]
        group = entry & _GROUP_MASK
        if entry & _READY:
            lane = self._lanes[self._group_names[group][0]]
            queue = lane.by_group[group]
            queue.remove(key)
            if not queue:
                del lane.by_group[group]
                lane.turns.remove(group)
            self._ready -= 1
        else:
            self._unlink(key, entry)
        del self._entries[key]
        self._left += 1
        self._leave_group(group)

    def _make_ready(self, key: ImageKey) -> None:
        entry = self._entries[key] | _READY
        self._entries[key] = entry
        group = entry & _GROUP_MASK
        name = self._group_names[group][0]
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane()
        queue = lane.by_group.get(group)
        if queue is None:
            lane.by_group[group] = deque((key,))
            lane.turns.append(group)
        else:
            queue.append(key)
        self._ready += 1

    def _make_room(self, due_ms: int) -> bool:
        """Drop what is due last, for something due at `due_ms`; False when that is the last."""
        self._dropped += 1
        victim: ImageKey | None = None
        if self._far_order:
            number = self._far_order[-1]
            if due_ms >> _GRANULE_BITS < number:
                victim = self._far[number][-1]
        elif self._near_start < len(self._near) and due_ms < self._due(self._near[-1]):
            victim = self._near[-1]
        lost_ms = due_ms if victim is None else self._due(victim)
        lost = self._origin + lost_ms / 1000
        if self.dropped_due is None or lost < self.dropped_due:
            self.dropped_due = lost
        if victim is None:
            return False
        self._remove(victim)
        return True

    def _new_group(self, name: tuple[Hashable, str | None]) -> int:
        if self._free_groups:
            group = self._free_groups.pop()
            self._group_names[group] = name
        else:
            group = len(self._group_names)
            self._group_names.append(name)
            self._group_sizes.append(0)
        self._groups[name] = group
        return group

    def _leave_group(self, group: int) -> None:
        self._group_sizes[group] -= 1
        if not self._group_sizes[group]:
            del self._groups[self._group_names[group]]
            self._free_groups.append(group)
