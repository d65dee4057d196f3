# SPDX-License-Identifier: Apache-2.0
"""A limit on how many images of one owner are scrubbed per second. Pure."""

from collections.abc import Iterable

#: Number of owners from which those without a pending turn are dropped.
_MANY = 10_000


class OwnerLimit:
    """Schedules the images of each owner at least ``1 / rate`` seconds apart.

    It remembers which images it delayed, so that a changed rate can schedule them again.

    :param rate: images per second of one owner; 0 for no limit.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._delayed: set[str] = set()  # images
        self._next: dict[str | None, float] = {}
        self._forget_at = _MANY

    def change(self, rate: float, now: float) -> set[str]:
        """Change the rate and forget the turns to come; those that came keep their distance.

        :param now: as in :meth:`turn`.
        :returns: images delayed by the old rate that did not start; empty if the rate is the same.
        """
        if rate == self.rate:
            return set()
        old, self.rate = self.rate, rate
        self._next = (
            {owner: min(now, turn - 1 / old) + 1 / rate for owner, turn in self._next.items()}
            if rate
            else {}
        )
        delayed, self._delayed = self._delayed, set()
        return delayed

    def started(self, image_ids: Iterable[str]) -> None:
        """Forget that images were delayed, because their turns have come."""
        self._delayed.difference_update(image_ids)

    def turn(self, image_id: str, owner: str | None, now: float) -> float:
        """Reserve the next turn of an owner for an image and return its time.

        :param now: seconds, by the same clock in all calls.
        :returns: `now` or later.
        """
        if not self.rate:
            return now
        turn = max(now, self._next.get(owner, now))
        self._next[owner] = turn + 1 / self.rate
        if turn > now:
            self._delayed.add(image_id)
        if len(self._next) > self._forget_at:
            self._next = {name: time for name, time in self._next.items() if time > now}
            # Twice what is left: dropping then costs O(1) per new owner, amortized.
            self._forget_at = max(_MANY, 2 * len(self._next))
        return turn
