# SPDX-License-Identifier: Apache-2.0
"""How durations are spread: counts in fixed buckets, so that any number of them takes no memory."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

#: From a tenth of a second, which is as prompt as it gets, to a day.
BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0)


@dataclass(frozen=True, slots=True)
class SpreadStatistics:
    """A histogram at one moment.

    :param bounds: upper bounds of the buckets in seconds, ascending.
    :param counts: durations in each bucket; one more than bounds, for those above the last.
    :param total_seconds: the sum of all durations.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total_seconds: float


class Spread:
    """Durations seen so far.

    :param bounds: upper bounds of the buckets in seconds, ascending; one without a bound follows.
    """

    def __init__(self, bounds: Sequence[float] = BOUNDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Take in a duration; what clocks make negative counts as none."""
        seconds = max(0.0, seconds)
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_seconds += seconds

    def statistics(self) -> SpreadStatistics:
        """Return the histogram as it is."""
        return SpreadStatistics(self.bounds, tuple(self.counts), self.total_seconds)
