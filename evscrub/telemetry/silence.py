# SPDX-License-Identifier: Apache-2.0
"""Notice that the bus has gone silent. Pure.

A consumer can be joined by all appearances and hear nothing: its broker waits for acknowledgements
that never come, or its queue is bound to nothing any more. What tells is the other way that images
come in: sweeps find images that were deleted while the bus was joined, and no message has come.
"""

#: So many images that the bus did not tell of are no coincidence; another agent may have heard of
#: a few and be late.
_MISSED_IMAGES = 10
#: How long not one message may have come.
_QUIET_SECONDS = 60.0
#: Joining again is of no use where Glance sends nothing, so it is tried seldom.
_AGAIN_SECONDS = 600.0


class Silence:
    """Decide when the bus should be joined again.

    :param now: seconds on an axis that only goes forward.
    """

    def __init__(self, now: float) -> None:
        self._received = 0
        self._missed = 0
        self._heard_at = now
        self._not_before = now

    def is_suspect(self, now: float, received: int, missed: int) -> bool:
        """Return whether the bus is silent although it should not be; each case once.

        :param received: messages that came, ever.
        :param missed: images that the bus should have told of and did not, ever.
        """
        if received != self._received:
            self._received, self._missed, self._heard_at = received, missed, now
        if (
            missed - self._missed < _MISSED_IMAGES
            or now - self._heard_at < _QUIET_SECONDS
            or now < self._not_before
        ):
            return False
        self._missed, self._heard_at = missed, now
        self._not_before = now + _AGAIN_SECONDS
        return True
