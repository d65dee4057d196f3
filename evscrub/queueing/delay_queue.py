# SPDX-License-Identifier: Apache-2.0
"""A delay queue of images: waiting until due, then ready in a lane, owners in turn.

Pure: no I/O, no clock, no locks. Times are seconds on a single axis chosen by the caller. An image
is in exactly one state:

* *waiting* until its due time, see :mod:`evscrub.queueing.waiting`;
* *ready* in its lane, dealt round-robin by owner, see :mod:`evscrub.queueing.turns`;
* *taken* for work. If it is added again meanwhile, it enters the queue at :meth:`DelayQueue.done`,
  so an image is never worked on twice at the same time.

A registry can hold a million pending images, so an entry is one integer (due time, source, group)
under one integer key: about 130 bytes with its share of dictionary and bucket.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import ceil, floor

from evscrub.queueing.image_key import ImageKey, pack, unpack
from evscrub.queueing.turns import GROUP_BITS, OwnerKey, Turns, owner_key
from evscrub.queueing.waiting import BUCKET_SHIFT, DUE_SHIFT, GRANULE_SECONDS, Waiting

__all__ = [
    "GRANULE_SECONDS",
    "MAX_CAPACITY",
    "Added",
    "DelayQueue",
    "QueueStatistics",
    "Source",
    "Taken",
]

MAX_CAPACITY = (1 << 24) - 1

# Layout of an entry, low bits first: group, source, ready, due time in milliseconds from the
# queue's origin (may be negative). An entry due within 198 days takes 32 bytes; a later one takes
# more.
_GROUP_MASK = (1 << GROUP_BITS) - 1
_EVENT = 1 << GROUP_BITS
_READY = 1 << (GROUP_BITS + 1)

#: Share of the queue reserved for images from sweeps: a publisher can send any number of events for
#: images that do not exist.
_KEPT_FOR_SWEEPS = 1 / 4


class Source(Enum):
    """How an image entered the queue."""

    EVENT = "event"
    SWEEP = "sweep"


class Added(Enum):
    """The result of adding an image."""

    NEW = "new"  #: The image was not in the queue and now waits.
    EARLIER = "earlier"  #: It was waiting, and it is due earlier than before.
    KNOWN = "known"  #: It was waiting or ready, and due no later; unchanged.
    AGAIN = "again"  #: It is taken and enters the queue when that ends.
    DROPPED = "dropped"  #: The queue is full, and all images in it are due earlier.


# Looking up members of an enumeration is slow.
_FROM_EVENT = Source.EVENT
_NEW = Added.NEW


@dataclass(frozen=True, slots=True)
class Taken:
    """An image handed out for work.

    :param owner: the owner whose turn it took.
    :param due: when it fell due, seconds on the queue's axis.
    """

    image_id: str
    owner: OwnerKey
    due: float
    source: Source


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """Numbers of images in a queue at one moment.

    :param waiting: images that are not due yet.
    :param ready: images that are due and not taken.
    :param taken: images that are being worked on.
    :param adds: images that entered the queue so far.
    :param dropped: images that the full queue dropped so far.
    :param capacity: how many images may wait or be ready.
    """

    waiting: int
    ready: int
    taken: int
    adds: int
    dropped: int
    capacity: int


@dataclass(slots=True)
class _Again:
    due: float
    owner: OwnerKey
    lane: Hashable
    source: Source


class DelayQueue:
    """A bounded, deduplicating delay queue, fair by owner within each lane.

    :param capacity: how many images may wait or be ready, from 1 to :data:`MAX_CAPACITY`. A full
        queue drops the image that is due last, to within :data:`GRANULE_SECONDS`; see
        :attr:`dropped_due`. Events may fill three quarters of it.
    :param origin: a time near the first due times, seconds; small differences take less memory.
    :param first_lane: the lane of images added without one; see also :attr:`swept_lane`.
    :raises ValueError: the capacity is out of bounds.
    """

    def __init__(self, capacity: int, origin: float = 0.0, first_lane: Hashable = None) -> None:
        if not 1 <= capacity <= MAX_CAPACITY:
            raise ValueError(f"capacity must be from 1 to {MAX_CAPACITY}, not {capacity}")
        self.capacity = capacity
        #: The earliest due time of a dropped image since :meth:`forget_dropped`; None for none.
        self.dropped_due: float | None = None
        self.first_lane = first_lane
        #: The lane of images from a sweep, whose owner is known from the registry.
        self.swept_lane = first_lane
        self._event_capacity = max(1, capacity - int(capacity * _KEPT_FOR_SWEEPS))
        self._origin = origin
        self._entries: dict[ImageKey, int] = {}
        self._waiting = Waiting(self._entries)
        self._turns = Turns()
        self._taken: dict[ImageKey, _Again | None] = {}
        self._events = 0  # entries from events
        self._left = 0  # images that left the queue; counted here to keep add() cheap
        self._dropped = 0

    # -- queries

    def __len__(self) -> int:
        """Return how many images are waiting or ready."""
        return len(self._entries)

    def __contains__(self, image_id: str) -> bool:
        """Return whether the image is waiting, ready or taken."""
        key = pack(image_id)
        return key in self._entries or key in self._taken

    def statistics(self) -> QueueStatistics:
        """Return the numbers of images in the queue. O(1)."""
        return QueueStatistics(
            waiting=len(self._entries) - self._turns.count,
            ready=self._turns.count,
            taken=len(self._taken),
            adds=self._left + len(self._entries),
            dropped=self._dropped,
            capacity=self.capacity,
        )

    def ready(self, lane: Hashable) -> int:
        """Return how many images are ready in `lane`."""
        return self._turns.ready(lane)

    def has_ready(self, lane: Hashable, at_most: Mapping[OwnerKey, int] | None = None) -> bool:
        """Return whether :meth:`take` would return an image of `lane`.

        :param at_most: see there.
        """
        return self._turns.has_ready(lane, at_most or {})

    def lanes(self) -> list[Hashable]:
        """Return the lanes with ready images."""
        return self._turns.lanes()

    def is_waiting(self, image_id: str) -> bool:
        """Return whether the image waits for its due time."""
        entry = self._entries.get(pack(image_id))
        return entry is not None and not entry & _READY

    def is_taken(self, image_id: str) -> bool:
        """Return whether the image is taken."""
        return pack(image_id) in self._taken

    def next_advance(self) -> float | None:
        """Return when to call :meth:`advance` next; None if no image waits.

        The time is at or before the next due time; before it if the bucket of that is not sorted
        yet.
        """
        return self._seconds(self._waiting.first_ms())

    def oldest_ready(self) -> float | None:
        """Return the earliest due time of the ready images; None if none is ready. O(ready)."""
        firsts = [min(map(self._entries.__getitem__, queue)) for queue in self._turns.queues()]
        return self._time(min(firsts)) if firsts else None

    def last_due(self) -> float | None:
        """Return when the last waiting image is due, up to :data:`GRANULE_SECONDS` too late."""
        return self._seconds(self._waiting.last_ms())

    def forecast(self, start: float, width: float, count: int) -> list[int]:
        """Count the waiting images by due time.

        :param start: beginning of the first span; earlier due times count in the first span, and
            later ones than the last span in the last.
        :param width: length of a span, seconds. Spans of :data:`GRANULE_SECONDS` or more are
            counted by bucket, so an image may count in the span before its own; shorter ones are
            O(waiting).
        :param count: number of spans.
        """
        spans = [0] * count

        def put(due: float, images: int) -> None:
            spans[min(count - 1, max(0, floor((due - start) / width)))] += images

        for due_ms in self._waiting.sorted_ms():
            put(self._origin + due_ms / 1000, 1)
        for begin_ms, bucket in self._waiting.buckets():
            if width >= GRANULE_SECONDS:
                put(self._origin + begin_ms / 1000, len(bucket))
                continue
            for key in bucket:
                put(self._time(self._entries[key]), 1)
        return spans

    # -- changes

    def add(
        self,
        image_id: str,
        due: float,
        *,
        owner: str | OwnerKey | None = None,
        lane: Hashable = None,
        source: Source = Source.EVENT,
    ) -> Added:
        """Add an image that is due at `due`; one that is in the queue keeps its earlier due time.

        One that waits keeps its owner and lane too, unless an event makes it due earlier.

        :param due: seconds on the queue's axis; an image with a past time is ready at the next
            :meth:`advance`.
        :param owner: the owner whose turn it takes.
        :param lane: the lane in which it becomes ready; None for the first lane of its source.
        """
        key = pack(image_id)
        if lane is None:
            lane = self.first_lane if source is _FROM_EVENT else self.swept_lane
        if key in self._taken:
            again = self._taken[key]
            if again is None or due < again.due:
                self._taken[key] = _Again(due, owner_key(owner), lane, source)
            return Added.AGAIN
        due_ms = ceil((due - self._origin) * 1000)
        entries = self._entries
        if (known := entries.get(key)) is not None:
            # Nobody has checked what an event says: the image is looked at if it is due earlier.
            group = self._turns.group(lane, owner_key(owner)) if source is _FROM_EVENT else None
            return self._add_known(key, known, due_ms, group)
        from_event = source is _FROM_EVENT
        full = len(entries) >= self.capacity or (
            from_event and self._events >= self._event_capacity
        )
        if full and not self._make_room(due_ms, from_event=from_event):
            return Added.DROPPED
        entry = due_ms << DUE_SHIFT | self._turns.group(lane, owner_key(owner))
        if from_event:
            entry |= _EVENT
            self._events += 1
        entries[key] = entry
        # The common case of Waiting.add(), inlined because it dominates the cost of many events.
        bucket = self._waiting.far.get(due_ms >> BUCKET_SHIFT)
        if bucket is None:
            self._waiting.add(key)
        else:
            bucket.append(key)
        return _NEW

    def cancel(self, image_id: str) -> bool:
        """Remove an image; if it is taken, it does not enter the queue again afterwards.

        :returns: whether there was anything to remove.
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
        """Make the images ready that are due at `now`; return how many."""
        before = self._turns.count
        for key in self._waiting.take_due(floor((now - self._origin) * 1000)):
            entry = self._entries[key]
            self._entries[key] = entry | _READY
            self._turns.add(key, entry & _GROUP_MASK)
        return self._turns.count - before

    def take(
        self, lane: Hashable, count: int, at_most: Mapping[OwnerKey, int] | None = None
    ) -> list[Taken]:
        """Take up to `count` ready images of `lane`, one of each owner in turn.

        Each must be returned with :meth:`done`.

        :param at_most: limits for some owners; an owner at its limit keeps the turn.
        """
        taken = []
        for key, owner in self._turns.take(lane, count, at_most or {}):
            entry = self._leave(key)
            self._taken[key] = None
            source = Source.EVENT if entry & _EVENT else Source.SWEEP
            taken.append(Taken(unpack(key), owner, self._time(entry), source))
        return taken

    def done(self, image_id: str) -> None:
        """End the work on an image; if it was added meanwhile, it enters the queue.

        :raises KeyError: the image is not taken.
        """
        again = self._taken.pop(pack(image_id))
        if again is not None:
            self.add(image_id, again.due, owner=again.owner, lane=again.lane, source=again.source)

    def shift(self, seconds: float) -> None:
        """Move all due times later by `seconds`, or earlier if negative. O(1)."""
        self._origin += seconds

    def forget_dropped(self) -> None:
        """Reset :attr:`dropped_due`, because a sweep finds the dropped images."""
        self.dropped_due = None

    # -- internals

    def _time(self, entry: int) -> float:
        return self._origin + (entry >> DUE_SHIFT) / 1000

    def _seconds(self, due_ms: int | None) -> float | None:
        return None if due_ms is None else self._origin + due_ms / 1000

    def _add_known(self, key: ImageKey, entry: int, due_ms: int, group: int | None) -> Added:
        """Add an image that is waiting or ready.

        :param group: the group that it changes to if it is due earlier; None for no event.
        """
        if group is not None and not entry & _EVENT:
            entry |= _EVENT
            self._events += 1
        self._entries[key] = entry
        if entry & _READY or due_ms >= entry >> DUE_SHIFT:
            return Added.KNOWN
        self._waiting.remove(key)
        if group is None:
            group = entry & _GROUP_MASK
        self._entries[key] = due_ms << DUE_SHIFT | entry & _EVENT | group
        self._waiting.add(key)
        return Added.EARLIER

    def _remove(self, key: ImageKey) -> None:
        entry = self._entries[key]
        if entry & _READY:
            self._turns.remove(key, entry & _GROUP_MASK)
        else:
            self._waiting.remove(key)
        self._leave(key)

    def _leave(self, key: ImageKey) -> int:
        """Remove and return an entry that is no longer waiting or ready."""
        entry = self._entries.pop(key)
        self._left += 1
        if entry & _EVENT:
            self._events -= 1
        return entry

    def _make_room(self, due_ms: int, *, from_event: bool) -> bool:
        """Drop the image that is due last to make room for one due at `due_ms`.

        An event displaces only images from events.

        :returns: False if the new image is the one to drop.
        """
        self._dropped += 1
        victim = self._waiting.last_after(due_ms)
        if from_event and victim is not None and not self._entries[victim] & _EVENT:
            victim = None
        lost = self._origin + due_ms / 1000 if victim is None else self._time(self._entries[victim])
        if self.dropped_due is None or lost < self.dropped_due:
            self.dropped_due = lost
        if victim is None:
            return False
        self._remove(victim)
        return True
