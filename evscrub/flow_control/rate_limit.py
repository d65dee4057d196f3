# SPDX-License-Identifier: Apache-2.0
"""A token bucket whose rate can change while tasks wait for it."""

import anyio
from aiolimiter import AsyncLimiter


class RateLimit:
    """A token bucket.

    :param rate: acquisitions per second; 0 for no limit.
    :param burst: size of the bucket, at least 1: acquisitions allowed at once after an idle time.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._limiter = _limiter(rate, burst)
        self._is_full = False  # whether to consume the burst of a new limiter first
        self._waiting: set[anyio.CancelScope] = set()

    def change(self, rate: float, burst: float) -> None:
        """Change rate and burst, also for waiting tasks; the bucket starts full."""
        if (rate, burst) != (self.rate, self.burst):
            self.rate, self.burst = rate, burst
            self._limiter, self._is_full = _limiter(rate, burst), False
            for scope in self._waiting:
                scope.cancel()

    def follow(self, rate: float, burst: float | None = None) -> None:
        """Change rate and burst, also for waiting tasks; the bucket starts empty.

        :param burst: None to keep it.
        """
        burst = self.burst if burst is None else burst
        if (rate, burst) != (self.rate, self.burst):
            self.change(rate, burst)
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
                        await limiter.acquire(self.burst)  # returns at once: the bucket is full
                    await limiter.acquire()
                finally:
                    self._waiting.discard(scope)
                return


def _limiter(rate: float, burst: float) -> AsyncLimiter | None:
    # AsyncLimiter(rate, 1) would let `rate` through at once on top of the steady rate.
    return AsyncLimiter(burst, burst / rate) if rate else None
