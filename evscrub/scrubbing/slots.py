# SPDX-License-Identifier: Apache-2.0
"""Slots of workers, and the jobs that wait for one: fair among owners. Pure."""

from collections import deque
from collections.abc import Callable

from evscrub.domain.evidence import Owner
from evscrub.scrubbing.job import Job

#: From so many slots on, an owner who is alone does without the last.
_MANY = 4


class Slots:
    """Who has how many of a number of slots.

    An owner who has more than half of them leaves one free, and while others wait, one for each
    four. Deletes of one owner that hang therefore never have all slots, whoever comes later.
    """

    def __init__(self, total: int) -> None:
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
    """Jobs that wait for a worker, dealt round-robin by owner."""

    def __init__(self) -> None:
        self._by_owner: dict[Owner, deque[Job]] = {}
        self._turns: deque[Owner] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def owners(self) -> int:
        """How many owners' jobs wait."""
        return len(self._by_owner)

    def count(self, owner: Owner) -> int:
        """How many jobs of an owner wait."""
        return len(self._by_owner.get(owner, ()))

    def push(self, job: Job) -> None:
        """Let a job wait."""
        owner = job.owner
        waiting = self._by_owner.get(owner)
        if waiting is None:
            self._by_owner[owner] = deque((job,))
            self._turns.append(owner)
        else:
            waiting.append(job)
        self._size += 1

    def turn_to(self, may: Callable[[Owner], bool]) -> bool:
        """Turn to the first owner that may begin; returns whether there is one."""
        for _ in range(len(self._turns)):
            if may(self._turns[0]):
                return True
            self._turns.rotate(-1)
        return False

    def pop(self, may: Callable[[Owner], bool]) -> Job | None:
        """Take the next job of the first owner that may begin; None without one."""
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
        """Take all jobs."""
        jobs = [job for waiting in self._by_owner.values() for job in waiting]
        self._by_owner.clear()
        self._turns.clear()
        self._size = 0
        return jobs

    def drain_owner(self, owner: Owner) -> list[Job]:
        """Take all jobs of an owner."""
        jobs = list(self._by_owner.pop(owner, ()))
        if jobs:
            self._turns.remove(owner)
            self._size -= len(jobs)
        return jobs
