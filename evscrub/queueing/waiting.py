# SPDX-License-Identifier: Apache-2.0
"""Keep waiting images in the order of their due times. Pure.

An entry is an integer whose bits from :data:`DUE_SHIFT` on are the due time, in milliseconds from
the queue's origin. Entries are kept in buckets of :data:`GRANULE_SECONDS`, and only the current
bucket is sorted, so the cost of an add does not depend on how many images wait.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping

from evscrub.queueing.image_key import ImageKey

_GRANULE_BITS = 17
#: Width of a bucket in seconds.
GRANULE_SECONDS = (1 << _GRANULE_BITS) / 1000

DUE_SHIFT = 26
#: Right shift that turns a due time in milliseconds into the number of its bucket.
BUCKET_SHIFT = _GRANULE_BITS


class Waiting:
    """Order the keys of waiting images.

    :param entries: the entry of each key; only read here.
    """

    def __init__(self, entries: Mapping[ImageKey, int]) -> None:
        #: Later buckets by number, unsorted. The queue appends to existing ones directly; all other
        #: changes happen here.
        self.far: dict[int, list[ImageKey]] = {}
        self._entries = entries
        self._far_order: list[int] = []  # bucket numbers, ascending
        self._near: list[ImageKey] = []  # by due time; those before _near_start are gone
        self._near_start = 0
        self._near_bucket = -(1 << 63)  # buckets up to this one are in _near

    def add(self, key: ImageKey) -> None:
        """Insert a key by the due time of its entry."""
        number = self._due_ms(key) >> BUCKET_SHIFT
        if number <= self._near_bucket:
            insort(self._near, key, lo=self._near_start, key=self._due_ms)
        elif (bucket := self.far.get(number)) is not None:
            bucket.append(key)
        else:
            self.far[number] = [key]
            insort(self._far_order, number)

    def remove(self, key: ImageKey) -> None:
        """Remove a key, whose entry must be unchanged since the key was added."""
        due_ms = self._due_ms(key)
        number = due_ms >> BUCKET_SHIFT
        if number <= self._near_bucket:
            at = bisect_left(self._near, due_ms, lo=self._near_start, key=self._due_ms)
            del self._near[self._near.index(key, at)]
            return
        bucket = self.far[number]
        # Buckets are unsorted, so the last key fills the gap.
        last = bucket.pop()
        if last != key:
            bucket[bucket.index(key)] = last
        if not bucket:
            del self.far[number]
            del self._far_order[bisect_left(self._far_order, number)]

    def take_due(self, now_ms: int) -> Iterator[ImageKey]:
        """Remove and yield the due keys in order; iterate it to the end."""
        while True:
            near = self._near
            at = self._near_start
            while at < len(near) and self._due_ms(near[at]) <= now_ms:
                yield near[at]
                at += 1
            if at * 2 > len(near):  # amortized: less than one move per removed key
                del near[:at]
                at = 0
            self._near_start = at
            if near or not self._far_order or self._far_order[0] > now_ms >> BUCKET_SHIFT:
                return
            self._near_bucket = self._far_order.pop(0)
            self._near = self.far.pop(self._near_bucket)
            self._near.sort(key=self._entries.__getitem__)

    def first_ms(self) -> int | None:
        """Return when the first key is due, or the start of its bucket if that is not sorted."""
        if self._near_start < len(self._near):
            return self._due_ms(self._near[self._near_start])
        return self._far_order[0] << BUCKET_SHIFT if self._far_order else None

    def last_ms(self) -> int | None:
        """Return when the last key is due, or the end of its bucket if that is not sorted."""
        if self._far_order:
            return (self._far_order[-1] + 1) << BUCKET_SHIFT
        return self._due_ms(self._near[-1]) if self._near_start < len(self._near) else None

    def last_after(self, due_ms: int) -> ImageKey | None:
        """Return a key that is due later than `due_ms`, to within a bucket; None for none."""
        if self._far_order:
            number = self._far_order[-1]
            return self.far[number][-1] if due_ms >> BUCKET_SHIFT < number else None
        if self._near_start < len(self._near) and due_ms < self._due_ms(self._near[-1]):
            return self._near[-1]
        return None

    def sorted_ms(self) -> Iterator[int]:
        """Return the due times in the current bucket."""
        return map(self._due_ms, self._near[self._near_start :])

    def buckets(self) -> Iterator[tuple[int, list[ImageKey]]]:
        """Return the later buckets: the start of each in milliseconds, and its keys."""
        return ((number << BUCKET_SHIFT, bucket) for number, bucket in self.far.items())

    def _due_ms(self, key: ImageKey) -> int:
        return self._entries[key] >> DUE_SHIFT
