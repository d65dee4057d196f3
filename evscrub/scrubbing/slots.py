# SPDX-License-Identifier: Apache-2.0
"""Slots of workers, and the claimed images that wait for one: fair among owners.

Pure: the lock is for the lanes, whose workers' threads take further images by themselves.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from evscrub.domain.evidence import Owner
from evscrub.scrubbing.job import Work

#: From so many slots on, an owner who is alone does without the last.
_MANY = 4


@dataclass(slots=True)
class Slot:
    """A worker's place, and the image that it is on."""

    work: Work


class Slots:
    """Who has how many of a number of slots.

    An owner who has more than half of them leaves one free, and while others wait, one for each
    four. Deletes of one owner that hang therefore never have all slots, whoever comes later.
    """

    def __init__(self, total: int) -> None:
        self.lock = threading.Lock()  #: for whoever lets several threads take slots
        self.total = total
        self.taken = 0
        self.by_owner: dict[Owner, int] = {}  # plain: a Counter takes longer

    def has_room(self, owner: Owner, *, alone: bool) -> bool:
        """Return whether an owner may have one more.

        :param alone: whether no other owner waits or has any.
        """
        left = self.total - self.taken - 1
        own = self.by_owner.get(owner, 0) + 1
        most = own > self.total / 2
        kept = int(most and self.total >= _MANY) if alone else max((own - 1) // 4, int(most))
        return left >= (kept if own > 1 else 0)

    def take(self, owner: Owner) -> None:
        """Give an owner a slot."""
        self.taken += 1
        self.by_owner[owner] = self.by_owner.get(owner, 0) + 1

    def leave(self, owner: Owner) -> None:
        """Take an owner's slot back."""
        self.taken -= 1
        left = self.by_owner[owner] - 1
        if left:
            self.by_owner[owner] = left
        else:
            del self.by_owner[owner]


class Backlog:
    """Claimed images, dealt round-robin by owner."""

    def __init__(self) -> None:
        self._by_owner: dict[Owner, deque[Work]] = {}
        self._turns: deque[Owner] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def owners(self) -> int:
        """How many owners' images wait."""
        return len(self._by_owner)

    def count(self, owner: Owner) -> int:
        """How many images of an owner wait."""
        return len(self._by_owner.get(owner, ()))

    def push(self, work: Work) -> None:
        """Let an image wait."""
        owner = work.owner
        waiting = self._by_owner.get(owner)
        if waiting is None:
            self._by_owner[owner] = deque((work,))
            self._turns.append(owner)
        else:
            waiting.append(work)
        self._size += 1

    def turn_to(self, may: Callable[[Owner], bool]) -> bool:
        """Turn to the first owner that may begin; returns whether there is one."""
        for _ in range(len(self._turns)):
            if may(self._turns[0]):
                return True
            self._turns.rotate(-1)
        return False

    def pop(self, may: Callable[[Owner], bool]) -> Work | None:
        """Take the next image of the first owner that may begin; None without one."""
        if not self.turn_to(may):
            return None
        owner = self._turns.popleft()
        waiting = self._by_owner[owner]
        work = waiting.popleft()
        self._size -= 1
        if waiting:
            self._turns.append(owner)
        else:
            del self._by_owner[owner]
        return work

    def drain(self) -> list[Work]:
        """Take all images."""
        works = [work for waiting in self._by_owner.values() for work in waiting]
        self._by_owner.clear()
        self._turns.clear()
        self._size = 0
        return works

    def drain_owner(self, owner: Owner) -> list[Work]:
        """Take all images of an owner."""
        works = list(self._by_owner.pop(owner, ()))
        if works:
            self._turns.remove(owner)
            self._size -= len(works)
        return works
