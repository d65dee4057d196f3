# SPDX-License-Identifier: Apache-2.0
"""A cap on how many images of one owner are scrubbed a second. Pure."""

#: Owners remembered before those are forgotten whose turn has come anyway.
_MANY = 10_000


class OwnerPace:
    """Gives each owner's images times at least ``1 / rate`` apart.

    :param rate: images a second and owner, 0 for no cap.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._next: dict[str | None, float] = {}
        self._forget_at = _MANY

    def turn(self, owner: str | None, now: float) -> float:
        """Return when an image of `owner` may begin: `now`, or later. Counts it as begun then."""
        if not self.rate:
            return now
        turn = max(now, self._next.get(owner, now))
        self._next[owner] = turn + 1 / self.rate
        if len(self._next) > self._forget_at:
            self._next = {name: time for name, time in self._next.items() if time > now}
            # Twice what is left, so that the search costs each new owner the same.
            self._forget_at = max(_MANY, 2 * len(self._next))
        return turn
