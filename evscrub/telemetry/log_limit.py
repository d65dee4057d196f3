# SPDX-License-Identifier: Apache-2.0
"""Limits how often a condition that lasts is logged. Pure."""

import math


class LogLimit:
    """Decides whether a condition is logged again. Not safe in threads.

    :param seconds: shortest time between two lines, more than 0.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next_at = -math.inf

    def allows(self, now: float, *, even_if_recent: bool = False) -> bool:
        """Return whether to log the condition now; if so, the next line waits its time.

        :param now: seconds, of a clock that never goes back.
        :param even_if_recent: log it however recent the last line is.
        """
        if now < self._next_at and not even_if_recent:
            return False
        self._next_at = now + self._seconds
        return True

    def reset(self) -> bool:
        """Allow the next line at once, because the condition is over.

        :returns: whether the condition was logged since the last reset.
        """
        was_logged = self._next_at != -math.inf
        self._next_at = -math.inf
        return was_logged
