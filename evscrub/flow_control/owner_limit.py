# SPDX-License-Identifier: Apache-2.0
"""A limit on how many images of one owner are scrubbed per second. Pure."""

from collections.abc import Iterable

#: How much too early an image may be let through: one that is late by less does not cost the next
#: one its turn.
_EARLY_SECONDS = 0.5


class OwnerLimit:
    """Schedules the images of each owner at least ``1 / rate`` seconds apart.

    An image gets a turn for which it waits in the queue, so that those to come need not be looked
    at, and is charged right before it is claimed: turns that passed while nothing could be claimed
    would all be taken at once. It remembers which images it delayed, so that a changed rate can
    schedule them again. Times are seconds by the same clock in all calls.

    :param rate: images per second of one owner; 0 for no limit.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._delayed: set[str] = set()  # images
        self._next: dict[int, float] = {}  # turns, by owner
        self._free: dict[int, float] = {}  # when the images that were charged are paid off

    def change(self, rate: float, now: float) -> set[str]:
        """Change the rate and forget the turns to come; those that came keep their distance.

        :returns: images delayed by the old rate that did not start; empty if the rate is the same.
        """
        if rate == self.rate:
            return set()
        old, self.rate = self.rate, rate
        for times in (self._next, self._free):
            if not rate:
                times.clear()
            for owner, time in times.items():
                times[owner] = min(now, time - 1 / old) + 1 / rate
        delayed, self._delayed = self._delayed, set()
        return delayed

    def started(self, image_ids: Iterable[str]) -> None:
        """Forget that images were delayed, because their turns have come."""
        self._delayed.difference_update(image_ids)

    def turn(self, image_id: str, owner: int, now: float) -> float:
        """Reserve the next turn of an owner for an image and return its time.

        :param owner: key of the owner, of a limited number of keys.
        :returns: `now` or later.
        """
        if not self.rate:
            return now
        turn = max(now, self._next.get(owner, now), self._free.get(owner, now))
        self._next[owner] = turn + 1 / self.rate
        if turn > now:
            self._delayed.add(image_id)
        return turn

    def lets_through(self, owner: int, now: float) -> bool:
        """Charge an image that is about to be claimed; False if it must wait for another turn.

        :param owner: as in :meth:`turn`.
        """
        if not self.rate:
            return True
        free = self._free.get(owner, now)
        if now < free - _EARLY_SECONDS:
            return False
        self._free[owner] = max(now, free) + 1 / self.rate
        return True
