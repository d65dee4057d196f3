# SPDX-License-Identifier: Apache-2.0
"""Which rows of a growing table to read again, since transactions end out of order.

A transaction takes the id of a new row when it inserts it, and shows the row when it commits. So a
row may appear below ids that were read before, and any number of them: behind Galera or Group
Replication each node takes ids in steps. What bounds it is time. Pure.
"""

from collections import deque
from collections.abc import Iterable

#: How long after its id was taken a row may appear and be noticed at once. InnoDB, for one, stops
#: waiting for a lock after 50 s (innodb_lock_wait_timeout).
OVERLAP_SECONDS = 60.0
#: Marks of the highest id are at least so far apart, so that they stay few.
_MARK_SECONDS = 1.0


class RecentIds:
    """The ids below which rows may still appear, and those that are known already.

    Every id at or below `floor` is known or too old to appear; those from there to `highest` are
    kept in a set. Times are seconds of any clock that never runs ahead of real time.

    :param floor: where to begin: all rows above it are still to be read.
    :param highest: the highest id there was at the time `now`.
    """

    def __init__(self, floor: int, highest: int, now: float) -> None:
        self.floor = floor
        self.highest = floor
        self._known: set[int] = set()
        self._total = 0
        #: The highest id at times of the last while, the oldest first.
        self._marks = deque([(now, highest)])
        #: The highest id before that while.
        self._settled = 0

    def __contains__(self, number: int) -> bool:
        return number in self._known

    @property
    def fingerprint(self) -> tuple[int, int]:
        """How many ids are known above the floor, and their sum."""
        return len(self._known), self._total

    def has_gone_back(self, highest: int) -> bool:
        """Return whether ids are missing that were there for longer than the overlap.

        After a restore from a dump they are, and after a purge of the newest rows, whose ids a
        server may give away again when it restarts: what stands below may have changed too.
        """
        return highest < self._settled

    def cut(self, highest: int) -> None:
        """Forget ids above the highest one: a node that lags shows them later, or others get them.

        :param highest: the highest id there is.
        """
        if highest >= self.highest:
            return
        self.highest = highest
        self.floor = min(self.floor, highest)
        self._marks = deque((at, min(mark, highest)) for at, mark in self._marks)
        self._forget(number for number in self._known if number > highest)

    def take_in(self, ids: Iterable[int], last: int, now: float) -> None:
        """Take in all ids that are there above `last`, read before the time `now`.

        :param last: the floor or the highest id.
        """
        ids = set(ids)
        self._forget(number for number in self._known if number > last and number not in ids)
        new = ids - self._known
        self._known |= new
        self._total += sum(new)
        self.highest = max(new, default=self.highest)
        self._mark(now)
        floor = max(self.floor, self._settled)
        while floor + 1 in self._known:  # there is no id in between
            floor += 1
        if floor > self.floor:
            self.floor = floor
            self._forget(number for number in self._known if number <= floor)

    def _mark(self, now: float) -> None:
        if now - self._marks[-1][0] >= _MARK_SECONDS:
            self._marks.append((now, self.highest))
        while now - self._marks[0][0] > OVERLAP_SECONDS:
            _, self._settled = self._marks.popleft()

    def _forget(self, ids: Iterable[int]) -> None:
        ids = list(ids)
        self._known.difference_update(ids)
        self._total -= sum(ids)
