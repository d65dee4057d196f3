# SPDX-License-Identifier: Apache-2.0
"""A rate limit that can be changed while it is waited for."""

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
        self._is_full = False  # the burst of a new limiter is still to be used up
        self._waiting: set[anyio.CancelScope] = set()

    def change(self, rate: float, burst: float) -> None:
        """Set another rate, also for those who wait already."""
        if (rate, burst) != (self.rate, self.burst):
            self.rate, self.burst = rate, burst
            self._limiter, self._is_full = _limiter(rate, burst), False
            for scope in self._waiting:
                scope.cancel()

    def follow(self, rate: float) -> None:
        """Set another rate, also for those who wait already, but give nobody a new burst."""
        if rate != self.rate:
            self.change(rate, self.burst)
            self._is_full = self._limiter is not None

    async def acquire(self) -> None:
        """Wait until an acquisition is allowed.

        Always one: aiolimiter lets smaller amounts pass a larger one that waits.
        """
        while (limiter := self._limiter) is not None:
            with anyio.CancelScope() as scope:
                self._waiting.add(scope)
                try:
                    if self._is_full:
                        self._is_full = False
                        await limiter.acquire(self.burst)  # at once: nothing is used up yet
                    await limiter.acquire()
                finally:
                    self._waiting.discard(scope)
                return


def _limiter(rate: float, burst: float) -> AsyncLimiter | None:
    # AsyncLimiter(rate, 1) would let `rate` through at once on top of the steady rate.
    return AsyncLimiter(burst, burst / rate) if rate else None
