# SPDX-License-Identifier: Apache-2.0
"""Ready images, in lanes, dealt to owners in turn. Pure.

Owners are told apart by a checksum of :data:`OWNER_BITS` bits, as in stochastic fairness queueing:
memory does not grow with what senders of events claim to be owners, and two owners share a turn
once in sixteen thousand times. That an owner can be made to share one on purpose gives nobody more
than they have by naming that owner.
"""

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from itertools import islice
from zlib import crc32

from evscrub.queueing.image_key import ImageKey

#: Whose turn an image takes: a number that stands for an owner.
OwnerKey = int

OWNER_BITS = 14
LANE_BITS = 10
#: A group is a lane's number and, in the low bits, an owner's key.
GROUP_BITS = LANE_BITS + OWNER_BITS
_OWNER_MASK = (1 << OWNER_BITS) - 1


def owner_key(owner: str | OwnerKey | None) -> OwnerKey:
    """Return the number that stands for an owner; a number stands for itself."""
    if isinstance(owner, int):
        return owner
    if owner is None:
        return 0
    return crc32(owner.encode("utf-8", "surrogatepass")) & _OWNER_MASK


class _Lane:
    """Ready images of one lane: a queue for each owner, and the owners in turn."""

    __slots__ = ("by_group", "turns")

    def __init__(self) -> None:
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
        """Put a key behind those of its group."""
        lane = self._lanes[group >> OWNER_BITS]
        queue = lane.by_group.get(group)
        if queue is None:
            lane.by_group[group] = deque((key,))
            lane.turns.append(group)
        else:
            queue.append(key)
        self.count += 1

    def remove(self, key: ImageKey, group: int) -> None:
        """Take a key out of its group."""
        lane = self._lanes[group >> OWNER_BITS]
        queue = lane.by_group[group]
        queue.remove(key)
        if not queue:
            del lane.by_group[group]
            lane.turns.remove(group)
        self.count -= 1

    def take(
        self, lane: Hashable, count: int, at_most: Mapping[OwnerKey, int]
    ) -> Iterator[tuple[ImageKey, OwnerKey]]:
        """Take out up to `count` keys of a lane, one of each owner in turn.

        :param at_most: how many keys of some owners; an owner who gets none keeps the turn.
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
            self.count -= 1
            count -= 1
            yield key, owner
        if found is not None:
            found.turns.extendleft(reversed(passed))

    def has_ready_of_others(self, lane: Hashable, owner: OwnerKey) -> bool:
        """Return whether a key of another owner is in a lane."""
        found = self._find(lane)
        # No owner has two turns.
        turns = () if found is None else islice(found.turns, 2)
        return any(group & _OWNER_MASK != owner for group in turns)

    def ready(self, lane: Hashable) -> int:
        """Return how many are in a lane."""
        found = self._find(lane)
        return 0 if found is None else sum(map(len, found.by_group.values()))

    def has_ready(self, lane: Hashable) -> bool:
        """Return whether any is in a lane."""
        found = self._find(lane)
        return found is not None and bool(found.turns)

    def lanes(self) -> list[Hashable]:
        """Return the lanes that any is in."""
        return [name for name, number in self._numbers.items() if self._lanes[number].turns]

    def queues(self) -> Iterator[deque[ImageKey]]:
        """Return the queue of each group."""
        for lane in self._lanes:
            yield from lane.by_group.values()

    def _find(self, lane: Hashable) -> _Lane | None:
        number = self._numbers.get(lane)
        return None if number is None else self._lanes[number]
