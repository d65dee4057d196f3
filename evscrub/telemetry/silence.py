# SPDX-License-Identifier: Apache-2.0
"""Detect that the bus is unexpectedly silent. Pure.

A consumer can look connected and still receive nothing, for instance because its broker waits for
lost acknowledgements or its queue has lost its bindings. Sweeps reveal that: they find images that
were deleted while the bus was joined, and no message arrived.
"""

#: Unannounced images that indicate silence; fewer may have been announced to an agent that is late.
_MISSED_IMAGES = 10
#: Time without any message that indicates silence.
_QUIET_SECONDS = 60.0
#: Shortest time between two attempts to rejoin, which are useless if Glance sends nothing.
_AGAIN_SECONDS = 600.0


class Silence:
    """Decide when to rejoin the bus.

    :param now: monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self._received = 0
        self._missed = 0
        self._heard_at = now
        self._not_before = now

    def is_suspect(self, now: float, received: int, missed: int) -> bool:
        """Return whether the bus is unexpectedly silent; each case is reported once.

        :param received: messages received so far.
        :param missed: images found so far that the bus should have announced and did not.
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
