# SPDX-License-Identifier: Apache-2.0
"""How fast a store may be asked: additive increase, multiplicative decrease. Pure.

A store that throttles or times out gets half the requests, at a time and a second; while it answers
well it gets a little more each second, up to what the operator allows.
"""

from dataclasses import dataclass

#: Growth of the rate each second without trouble. From half to whole takes 14 s.
_GROWTH = 1.05
_LOWEST_RATE = 0.1
#: A store without a limit of its own is free of one again at so many times the rate that it could
#: not bear.
_FREE_AGAIN = 4.0
#: Answers to requests that were under way at a cut say nothing new.
_CUT_EVERY_SECONDS = 1.0
#: What a rate is measured over; less at first, so that there is one soon.
_MEASURE_SECONDS = 1.0
#: A cut that is older says little of what the store bears now; where answers come all the time, the
#: pace is back before that.
_FORGET_CUT_SECONDS = 60.0
#: A rate measured over longer than this says little of how fast the store is.
_FORGET_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class PaceStatistics:
    """The limits of a store at one moment; rates in deletes a second, 0 for no limit.

    :param concurrent: deletes at a time.
    :param most_concurrent: deletes at a time that the operator allows.
    :param rate: the limit of the rate.
    :param most_rate: the limit that the operator set.
    :param per_second: good answers a second, lately.
    :param is_slowed: whether the store gets less than the operator allows.
    """

    concurrent: int
    most_concurrent: int
    rate: float
    most_rate: float
    per_second: float
    is_slowed: bool


@dataclass(slots=True)
class Pace:
    """Limits of one store that follow its answers.

    :param most_concurrent: what the operator allows at a time, at least 1.
    :param most_rate: what the operator allows a second, 0 for no limit.
    """

    most_concurrent: int
    most_rate: float = 0.0
    concurrent: int = 0
    rate: float = 0.0  #: deletes a second now, 0 for no limit
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
        """Good answers a second, lately."""
        return self._per_second

    @property
    def is_slowed(self) -> bool:
        """Whether the store gets less than the operator allows."""
        return self.concurrent < self.most_concurrent or self.rate != self.most_rate

    def statistics(self) -> PaceStatistics:
        """Return the limits as they are."""
        return PaceStatistics(
            self.concurrent,
            self.most_concurrent,
            self.rate,
            self.most_rate,
            self.per_second,
            self.is_slowed,
        )

    def allow(self, most_concurrent: int, most_rate: float) -> None:
        """Take over what the operator allows now; a slowed store keeps its pace below that."""
        slowed = self.is_slowed
        self.most_concurrent, self.most_rate = most_concurrent, most_rate
        if not slowed:
            self.concurrent, self.rate = most_concurrent, most_rate
            return
        self.concurrent = min(self.concurrent, most_concurrent)
        if most_rate:
            self.rate = min(self.rate or most_rate, most_rate)

    def restore(self) -> None:
        """Take back all cuts."""
        self.concurrent, self.rate = self.most_concurrent, self.most_rate

    def answered(self, now: float) -> None:
        """Take in a good answer."""
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
        """Take in a sign of overload; returns whether the pace was cut for it."""
        if now - self._cut_at < _CUT_EVERY_SECONDS:
            return False
        self._cut_at = now
        self.concurrent = max(1, self.concurrent // 2)
        # The last whole second may have gone by with loading the driver.
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
