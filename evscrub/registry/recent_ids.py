# SPDX-License-Identifier: Apache-2.0
"""Track which rows of a growing table to read again, because transactions end out of order.

A transaction gets the id of a new row at the INSERT, but others see the row only after the COMMIT.
So rows may appear below ids that were read before, in any number: behind Galera or Group
Replication each node allocates ids in steps. Only time bounds how late they appear. Pure.
"""

from collections import deque
from collections.abc import Iterable

#: How long after its id was allocated a row may appear and still be noticed by an incremental read.
#: InnoDB, for example, stops waiting for a lock after 50 s (innodb_lock_wait_timeout).
OVERLAP_SECONDS = 60.0
#: Shortest time between two marks of the highest id, to keep them few.
_MARK_SECONDS = 1.0


class RecentIds:
    """The range of ids in which rows may still appear, and the ids in it that are known.

    Every id at or below `floor` is known or too old to appear. The known ids above it, up to
    `highest`, are kept in a set. Times are seconds of any clock that is never faster than real
    time.

    :param floor: initial floor: all rows above it are still to be read.
    :param highest: highest id in the table at the time `now`.
    """

    def __init__(self, floor: int, highest: int, now: float) -> None:
        self.floor = floor
        self.highest = floor
        self._known: set[int] = set()
        self._total = 0
        #: Times within the last OVERLAP_SECONDS with the highest id then, the oldest first.
        self._marks = deque([(now, highest)])
        #: The highest id before the oldest mark: no row appears at or below it.
        self._settled = 0

    def __contains__(self, number: int) -> bool:
        return number in self._known

    @property
    def fingerprint(self) -> tuple[int, int]:
        """Number and sum of the known ids above the floor."""
        return len(self._known), self._total

    def has_gone_back(self, highest: int) -> bool:
        """Return whether rows are gone that existed for longer than the overlap.

        That happens after a restore from a dump, and after a purge of the newest rows, whose ids a
        server may allocate again after a restart. Rows with lower ids may have changed too.

        :param highest: highest id in the table.
        """
        return highest < self._settled

    def cut(self, highest: int) -> None:
        """Forget ids above `highest`: a lagging node shows them later, or new rows get them.

        :param highest: highest id in the table.
        """
        if highest >= self.highest:
            return
        self.highest = highest
        self.floor = min(self.floor, highest)
        self._marks = deque((at, min(mark, highest)) for at, mark in self._marks)
        self._forget(number for number in self._known if number > highest)

    def take_in(self, ids: Iterable[int], last: int, now: float) -> None:
        """Record all ids in the table above `last`, as read before the time `now`.

        :param ids: the ids; known ones above `last` that are not among them are forgotten.
        :param last: the floor or the highest id.
        """
        ids = set(ids)
        self._forget(number for number in self._known if number > last and number not in ids)
        new = ids - self._known
        self._known |= new
        self._total += sum(new)
        self.highest = max(new | {self.highest})
        self._mark(now)
        floor = max(self.floor, self._settled)
        while floor + 1 in self._known:  # no id is missing in between
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
