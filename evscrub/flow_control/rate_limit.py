# SPDX-License-Identifier: Apache-2.0
"""A rate limit that can be changed while it is waited for."""

from contextlib import suppress

import anyio
from aiolimiter import AsyncLimiter


class RateLimit:
    """At most `rate` acquisitions a second, with `burst` of them at once after a quiet time.

    :param rate: a second; 0 is no limit.
    :param burst: at least 1.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._limiter = _limiter(rate, burst)
        self._waiting: set[anyio.CancelScope] = set()

    def change(self, rate: float, burst: float) -> None:
        """Set another rate, also for those who wait already."""
        if (rate, burst) != (self.rate, self.burst):
            self.rate, self.burst = rate, burst
            self._limiter = _limiter(rate, burst)
            for scope in self._waiting:
                scope.cancel()

    def follow(self, rate: float) -> None:
        """Set another rate, also for those who wait already, but give nobody a new burst."""
        if rate == self.rate:
            return
        self.change(rate, self.burst)
        if self._limiter is not None:
            with suppress(StopIteration):  # it ends at once, for nothing is used up yet
                self._limiter.acquire(self.burst).send(None)

    @property
    def ready(self) -> bool:
        """Whether there is a turn that needs no waiting for."""
        return self._limiter is None or self._limiter.has_capacity()

    def take_ready(self) -> None:
        """Take a turn that is ready."""
        if self._limiter is not None:
            with suppress(StopIteration):  # it ends at once, for there is one
                self._limiter.acquire().send(None)

    async def acquire(self) -> None:
        """Wait for one's turn."""
        while (limiter := self._limiter) is not None:
            with anyio.CancelScope() as scope:
                self._waiting.add(scope)
                try:
                    await limiter.acquire()
                finally:
                    self._waiting.discard(scope)
                return


def _limiter(rate: float, burst: float) -> AsyncLimiter | None:
    # AsyncLimiter(rate, 1) would let `rate` through at once on top of the steady rate.
    return AsyncLimiter(burst, burst / rate) if rate else None
