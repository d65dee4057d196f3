# SPDX-License-Identifier: Apache-2.0
"""An adaptive limit of concurrency and rate. Pure.

A store that throttles or times out gets half as many concurrent requests and half the rate. While
it answers well, both grow a little each second, up to what the operator allows.
"""

from dataclasses import dataclass

#: Growth of the rate per second without trouble: it doubles in about 14 s.
_GROWTH = 1.05
_LOWEST_RATE = 0.1
#: A store without a configured rate is unlimited again at this multiple of the rate at which it was
#: overloaded.
_FREE_AGAIN = 4.0
#: Minimum interval between cuts: requests in flight at a cut are no evidence of another overload.
_CUT_EVERY_SECONDS = 1.0
#: Measuring period of a rate; the first is a tenth of it, to have an estimate soon.
_MEASURE_SECONDS = 1.0
#: Age at which a cut is forgotten; with a steady load the limits have recovered before.
_FORGET_CUT_SECONDS = 60.0
#: A measuring period longer than this is discarded: the store was idle in it.
_FORGET_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class PaceStatistics:
    """The limits of a store at one moment; rates in deletes per second, 0 for no limit.

    :param concurrent: current limit of concurrent deletes.
    :param most_concurrent: concurrent deletes that the operator allows.
    :param rate: current rate limit.
    :param most_rate: rate limit that the operator set.
    :param per_second: recent rate of good answers, measured.
    :param is_slowed: whether a limit is below what the operator allows.
    """

    concurrent: int
    most_concurrent: int
    rate: float
    most_rate: float
    per_second: float
    is_slowed: bool


@dataclass(slots=True)
class Pace:
    """Limits of one store that adapt to its answers.

    :param most_concurrent: concurrent deletes that the operator allows, at least 1.
    :param most_rate: deletes per second that the operator allows; 0 for no limit.
    :param concurrent: current limit of concurrent deletes.
    """

    most_concurrent: int
    most_rate: float = 0.0
    concurrent: int = 0
    rate: float = 0.0  #: current limit, deletes per second; 0 for no limit
    _troubled_rate: float = 0.0
    _cut_at: float = float("-inf")
    _second: float = float("-inf")
    _answers: int = 0
    _per_second: float = 0.0

    def __post_init__(self) -> None:
        self.concurrent = self.most_concurrent
        self.rate = self.most_rate

    @property
    def per_second(self) -> float:
        """Recent rate of good answers per second; 0 until measured."""
        return self._per_second

    @property
    def is_slowed(self) -> bool:
        """Whether a limit is below what the operator allows."""
        return self.concurrent < self.most_concurrent or self.rate != self.most_rate

    def statistics(self) -> PaceStatistics:
        """Return the current limits."""
        return PaceStatistics(
            self.concurrent,
            self.most_concurrent,
            self.rate,
            self.most_rate,
            self.per_second,
            self.is_slowed,
        )

    def allow(self, most_concurrent: int, most_rate: float) -> None:
        """Change what the operator allows; a slowed store keeps its lower limits.

        :param most_concurrent: at least 1.
        :param most_rate: deletes per second; 0 for no limit.
        """
        slowed = self.is_slowed
        self.most_concurrent, self.most_rate = most_concurrent, most_rate
        if not slowed:
            self.concurrent, self.rate = most_concurrent, most_rate
            return
        self.concurrent = min(self.concurrent, most_concurrent)
        if most_rate:
            self.rate = min(self.rate or most_rate, most_rate)

    def restore(self) -> None:
        """Restore the limits that the operator allows."""
        self.concurrent, self.rate = self.most_concurrent, self.most_rate

    def answered(self, now: float) -> None:
        """Record a good answer.

        :param now: seconds, by the same monotonic clock in all calls.
        """
        self._answers += 1
        if self.is_slowed and now - self._cut_at >= _FORGET_CUT_SECONDS:
            self.restore()
        elapsed = now - self._second
        if elapsed < (_MEASURE_SECONDS if self._per_second else _MEASURE_SECONDS / 10):
            return
        if elapsed < _FORGET_SECONDS:
            self._per_second = self._answers / elapsed
        self._second, self._answers = now, 0
        if self.is_slowed and now - self._cut_at >= _CUT_EVERY_SECONDS:
            self._grow()

    def troubled(self, now: float) -> bool:
        """Record a sign of overload; cut the limits unless they were cut within the last second.

        :param now: seconds, by the same monotonic clock in all calls.
        :returns: whether the limits were cut.
        """
        if now - self._cut_at < _CUT_EVERY_SECONDS:
            return False
        self._cut_at = now
        self.concurrent = max(1, self.concurrent // 2)
        # The last full period may have been spent loading the driver.
        lately = max(self._per_second, float(self._answers))
        borne = self.rate or lately or float(self.concurrent)
        self._troubled_rate = borne
        self.rate = min(borne, max(_LOWEST_RATE, borne / 2))
        return True

    def _grow(self) -> None:
        self.concurrent = min(self.most_concurrent, self.concurrent + 1)
        if not self.rate:
            return
        self.rate *= _GROWTH
        if self.most_rate:
            self.rate = min(self.rate, self.most_rate)
        elif self.rate > _FREE_AGAIN * self._troubled_rate:
            self.rate = 0.0
