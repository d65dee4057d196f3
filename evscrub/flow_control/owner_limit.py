# SPDX-License-Identifier: Apache-2.0
"""A limit on how many images of one owner are scrubbed per second. Pure."""

#: Number of owners from which those without a pending turn are dropped.
_MANY = 10_000


class OwnerPace:
    """Schedules the images of each owner at least ``1 / rate`` seconds apart.

    :param rate: images per second of one owner; 0 for no limit.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._next: dict[str | None, float] = {}
        self._forget_at = _MANY

    def turn(self, owner: str | None, now: float) -> float:
        """Reserve the next turn of an owner and return its time.

        :param now: seconds, by the same clock in all calls.
        :returns: `now` or later.
        """
        if not self.rate:
            return now
        turn = max(now, self._next.get(owner, now))
        self._next[owner] = turn + 1 / self.rate
        if len(self._next) > self._forget_at:
            self._next = {name: time for name, time in self._next.items() if time > now}
            # Twice what is left: dropping then costs O(1) per new owner, amortized.
            self._forget_at = max(_MANY, 2 * len(self._next))
        return turn
