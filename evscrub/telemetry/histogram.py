# SPDX-License-Identifier: Apache-2.0
"""A histogram of durations with fixed buckets, which uses constant memory."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

#: Upper bounds in seconds, from a tenth of a second, the shortest expected lateness, to a day.
BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0)


@dataclass(frozen=True, slots=True)
class HistogramStatistics:
    """A histogram at one moment.

    :param bounds: upper bounds of the buckets in seconds, ascending.
    :param counts: durations in each bucket, with one more bucket than bounds.
    :param total_seconds: the sum of all durations.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total_seconds: float


class Histogram:
    """Count durations by bucket.

    :param bounds: upper bounds of the buckets in seconds, ascending; one more bucket has no bound.
    """

    def __init__(self, bounds: Sequence[float] = BOUNDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration; a negative one, from clock differences, counts as 0."""
        seconds = max(0.0, seconds)
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_seconds += seconds

    def statistics(self) -> HistogramStatistics:
        """Return the current histogram."""
        return HistogramStatistics(self.bounds, tuple(self.counts), self.total_seconds)
