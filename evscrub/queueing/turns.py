# SPDX-License-Identifier: Apache-2.0
"""Deal ready images of each lane to their owners in turn. Pure.

Owners are distinguished by a checksum of :data:`OWNER_BITS` bits, as in stochastic fairness
queueing: memory does not grow with the number of owners that events claim, and two given owners
share a turn with a probability of one in sixteen thousand. Forcing such a collision gains a
publisher nothing that naming the other owner would not.
"""

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from zlib import crc32

from evscrub.queueing.image_key import ImageKey

#: A number that stands for an owner.
OwnerKey = int

OWNER_BITS = 14
LANE_BITS = 10
#: A group is a lane's number and, in the low bits, an owner's key.
GROUP_BITS = LANE_BITS + OWNER_BITS
_OWNER_MASK = (1 << OWNER_BITS) - 1


def owner_key(owner: str | OwnerKey | None) -> OwnerKey:
    """Return the key of an owner; a key is returned as it is."""
    if isinstance(owner, int):
        return owner
    if owner is None:
        return 0
    return crc32(owner.encode("utf-8", "surrogatepass")) & _OWNER_MASK


class _Lane:
    """Ready images of one lane: a queue per owner, and the order of their turns."""

    __slots__ = ("by_group", "count", "turns")

    def __init__(self) -> None:
        self.count = 0
        self.by_group: dict[int, deque[ImageKey]] = {}
        self.turns: deque[int] = deque()


class Turns:
    """Keys of ready images."""

    def __init__(self) -> None:
        self.count = 0
        self._numbers: dict[Hashable, int] = {}
        self._lanes: list[_Lane] = []

    def group(self, lane: Hashable, owner: OwnerKey) -> int:
        """Return the group of an owner's images in a lane.

        :raises ValueError: there are more lanes than a group can number.
        """
        number = self._numbers.get(lane)
        if number is None:
            number = len(self._lanes)
            if number >> LANE_BITS:
                raise ValueError(f"there can be {1 << LANE_BITS} lanes at most")
            self._numbers[lane] = number
            self._lanes.append(_Lane())
        return number << OWNER_BITS | owner

    def add(self, key: ImageKey, group: int) -> None:
        """Append a key to its group."""
        lane = self._lanes[group >> OWNER_BITS]
        queue = lane.by_group.get(group)
        if queue is None:
            lane.by_group[group] = deque((key,))
            lane.turns.append(group)
        else:
            queue.append(key)
        lane.count += 1
        self.count += 1

    def remove(self, key: ImageKey, group: int) -> None:
        """Remove a key from its group.

        :raises ValueError: it is not there.
        """
        lane = self._lanes[group >> OWNER_BITS]
        queue = lane.by_group[group]
        queue.remove(key)
        if not queue:
            del lane.by_group[group]
            lane.turns.remove(group)
        lane.count -= 1
        self.count -= 1

    def take(
        self, lane: Hashable, count: int, at_most: Mapping[OwnerKey, int]
    ) -> Iterator[tuple[ImageKey, OwnerKey]]:
        """Remove and yield up to `count` keys of a lane, one of each owner in turn.

        :param at_most: limits for some owners; an owner at its limit keeps the turn.
        """
        found = self._find(lane)
        left = dict(at_most)
        passed: list[int] = []
        while found is not None and found.turns and count > 0:
            group = found.turns.popleft()
            owner = group & _OWNER_MASK
            if owner in left:
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
            found.count -= 1
            self.count -= 1
            count -= 1
            yield key, owner
        if found is not None:
            found.turns.extendleft(reversed(passed))

    def ready(self, lane: Hashable) -> int:
        """Return the number of ready keys in a lane."""
        found = self._find(lane)
        return 0 if found is None else found.count

    def has_ready(self, lane: Hashable, at_most: Mapping[OwnerKey, int]) -> bool:
        """Return whether :meth:`take` would yield a key of a lane."""
        found = self._find(lane)
        turns = () if found is None else found.turns
        return any(at_most.get(group & _OWNER_MASK, 1) > 0 for group in turns)

    def lanes(self) -> list[Hashable]:
        """Return the lanes with ready keys."""
        return [name for name, number in self._numbers.items() if self._lanes[number].turns]

    def queues(self) -> Iterator[deque[ImageKey]]:
        """Yield the queue of each group."""
        for lane in self._lanes:
            yield from lane.by_group.values()

    def _find(self, lane: Hashable) -> _Lane | None:
        number = self._numbers.get(lane)
        return None if number is None else self._lanes[number]
