# SPDX-License-Identifier: Apache-2.0
"""Worker slots and the backlog of jobs, both fair among owners. Pure."""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain

from evscrub.domain.evidence import Owner
from evscrub.scrubbing.job import Job

#: With at least this many slots, a lone owner leaves the last one free.
_MANY = 4


class Slots:
    """A number of slots, and how many each owner holds.

    An owner may always take a first free slot. An owner who would hold more than half of the slots
    leaves one free, unless alone with fewer than four slots, and one for every four held if others
    compete. With four slots or more, the deletes of one owner therefore never occupy all of them,
    even if they hang.

    :param total: number of slots, at least 1; may be changed.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self.by_owner: dict[Owner, int] = {}  # plain: a Counter takes longer

    def has_room(self, owner: Owner, *, alone: bool) -> bool:
        """Return whether an owner may take one more slot.

        :param alone: whether no other owner waits or holds a slot.
        """
        left = self.total - self.taken - 1
        own = self.by_owner.get(owner, 0) + 1
        most = own > self.total / 2
        kept = int(most and self.total >= _MANY) if alone else max((own - 1) // 4, int(most))
        return left >= (kept if own > 1 else 0)

    def take(self, owner: Owner) -> None:
        """Charge a slot to an owner."""
        self.taken += 1
        self.by_owner[owner] = self.by_owner.get(owner, 0) + 1

    def leave(self, owner: Owner) -> None:
        """Free a slot of an owner."""
        self.taken -= 1
        left = self.by_owner[owner] - 1
        if left:
            self.by_owner[owner] = left
        else:
            del self.by_owner[owner]


class Backlog:
    """Jobs that wait for a worker, served round-robin by owner."""

    def __init__(self) -> None:
        self._by_owner: dict[Owner, deque[Job]] = {}
        self._turns: deque[Owner] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Job]:
        """Iterate over all jobs, owner by owner."""
        return chain.from_iterable(self._by_owner.values())

    @property
    def owners(self) -> int:
        """Number of owners with jobs in the backlog."""
        return len(self._by_owner)

    def count(self, owner: Owner) -> int:
        """Return the number of an owner's jobs."""
        return len(self._by_owner.get(owner, ()))

    def push(self, job: Job) -> None:
        """Append a job to its owner's queue."""
        owner = job.owner
        waiting = self._by_owner.get(owner)
        if waiting is None:
            self._by_owner[owner] = deque((job,))
            self._turns.append(owner)
        else:
            waiting.append(job)
        self._size += 1

    def turn_to(self, may: Callable[[Owner], bool]) -> bool:
        """Rotate to the first owner that `may` accepts.

        :returns: whether there is one.
        """
        for _ in range(len(self._turns)):
            if may(self._turns[0]):
                return True
            self._turns.rotate(-1)
        return False

    def pop(self, may: Callable[[Owner], bool]) -> Job | None:
        """Remove and return the next job of the first owner that `may` accepts; None if none is."""
        if not self.turn_to(may):
            return None
        owner = self._turns.popleft()
        waiting = self._by_owner[owner]
        job = waiting.popleft()
        self._size -= 1
        if waiting:
            self._turns.append(owner)
        else:
            del self._by_owner[owner]
        return job

    def drain(self) -> list[Job]:
        """Remove and return all jobs."""
        jobs = list(self)
        self._by_owner.clear()
        self._turns.clear()
        self._size = 0
        return jobs

    def drain_owner(self, owner: Owner) -> list[Job]:
        """Remove and return all jobs of an owner."""
        jobs = list(self._by_owner.pop(owner, ()))
        if jobs:
            self._turns.remove(owner)
            self._size -= len(jobs)
        return jobs
