# SPDX-License-Identifier: Apache-2.0
"""Images that wait, in order of when they fall due. Pure.

An entry is one integer; its bits from :data:`DUE_SHIFT` on are the due time, in milliseconds from
the queue's origin. Entries lie in buckets of :data:`GRANULE_SECONDS`, and only the bucket that is
under way is kept sorted, so that an add costs the same however many images wait.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping

from evscrub.queueing.image_key import ImageKey

_GRANULE_BITS = 17
#: Width of a bucket.
GRANULE_SECONDS = (1 << _GRANULE_BITS) / 1000

DUE_SHIFT = 26
#: How far to shift a due time, in milliseconds, for the number of its bucket.
BUCKET_SHIFT = _GRANULE_BITS


class Waiting:
    """Keys of waiting images.

    :param entries: each key's entry; read here and changed by its owner alone.
    """

    def __init__(self, entries: Mapping[ImageKey, int]) -> None:
        #: Buckets after the one under way, by number, each in any order. Their owner appends to one
        #: that is there; everything else is done here.
        self.far: dict[int, list[ImageKey]] = {}
        self._entries = entries
        self._far_order: list[int] = []  # bucket numbers, ascending
        self._near: list[ImageKey] = []  # by due time; those before _near_start are gone
        self._near_start = 0
        self._near_bucket = -(1 << 63)  # buckets up to this one are in _near

    def add(self, key: ImageKey) -> None:
        """Put a key where its entry's due time says."""
        number = self._due_ms(key) >> BUCKET_SHIFT
        if number <= self._near_bucket:
            insort(self._near, key, lo=self._near_start, key=self._due_ms)
        elif (bucket := self.far.get(number)) is not None:
            bucket.append(key)
        else:
            self.far[number] = [key]
            insort(self._far_order, number)

    def remove(self, key: ImageKey) -> None:
        """Take a key out whose entry is still as it was when the key was added."""
        due_ms = self._due_ms(key)
        number = due_ms >> BUCKET_SHIFT
        if number <= self._near_bucket:
            at = bisect_left(self._near, due_ms, lo=self._near_start, key=self._due_ms)
            del self._near[self._near.index(key, at)]
            return
        bucket = self.far[number]
        # Order within a bucket does not matter, so the last one fills the gap.
        last = bucket.pop()
        if last != key:
            bucket[bucket.index(key)] = last
        if not bucket:
            del self.far[number]
            del self._far_order[bisect_left(self._far_order, number)]

    def take_due(self, now_ms: int) -> Iterator[ImageKey]:
        """Take out what is due, in order; to be iterated to its end."""
        while True:
            near = self._near
            at = self._near_start
            while at < len(near) and self._due_ms(near[at]) <= now_ms:
                yield near[at]
                at += 1
            if at * 2 > len(near):  # less than one move for each that goes
                del near[:at]
                at = 0
            self._near_start = at
            if near or not self._far_order or self._far_order[0] > now_ms >> BUCKET_SHIFT:
                return
            self._near_bucket = self._far_order.pop(0)
            self._near = self.far.pop(self._near_bucket)
            self._near.sort(key=self._entries.__getitem__)

    def first_ms(self) -> int | None:
        """Return when the first is due, or, if its bucket is not sorted yet, when that begins."""
        if self._near_start < len(self._near):
            return self._due_ms(self._near[self._near_start])
        return self._far_order[0] << BUCKET_SHIFT if self._far_order else None

    def last_ms(self) -> int | None:
        """Return when the last is due, or, if its bucket is not sorted yet, when that ends."""
        if self._far_order:
            return (self._far_order[-1] + 1) << BUCKET_SHIFT
        return self._due_ms(self._near[-1]) if self._near_start < len(self._near) else None

    def last_after(self, due_ms: int) -> ImageKey | None:
        """Return a key of the last bucket if that is due later, to within a bucket."""
        if self._far_order:
            number = self._far_order[-1]
            return self.far[number][-1] if due_ms >> BUCKET_SHIFT < number else None
        if self._near_start < len(self._near) and due_ms < self._due_ms(self._near[-1]):
            return self._near[-1]
        return None

    def sorted_ms(self) -> Iterator[int]:
        """Return the due times of the bucket under way."""
        return map(self._due_ms, self._near[self._near_start :])

    def buckets(self) -> Iterator[tuple[int, list[ImageKey]]]:
        """Return the others: when each begins, in milliseconds, and its keys."""
        return ((number << BUCKET_SHIFT, bucket) for number, bucket in self.far.items())

    def _due_ms(self, key: ImageKey) -> int:
        return self._entries[key] >> DUE_SHIFT
