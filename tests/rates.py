# SPDX-License-Identifier: Apache-2.0
"""What the moments of requests say of the rate that they keep to. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


def most_above(times: Sequence[float], rate: float, burst: float) -> float:
    """Return by how much the busiest window is above ``burst + rate * t``; below 0 if none is.

    Windows of all lengths count, at a cost that grows with the number of requests alone.

    :param times: when each request came, seconds, ascending; at least one.
    :param rate: requests per second.
    """
    # A window from the i-th to the j-th has j - i + 1 requests.
    lowest = float("inf")
    most = float("-inf")
    for number, at in enumerate(times):
        level = number - rate * at
        lowest = min(lowest, level)
        most = max(most, level - lowest + 1 - burst)
    return most


def most_within(times: Sequence[float], seconds: float) -> int:
    """Return the number of requests in the busiest window of a length.

    :param times: when each request came, seconds, ascending.
    """
    return max(
        (bisect_left(times, at + seconds) - number for number, at in enumerate(times)), default=0
    )


def count_between(times: Sequence[float], since: float, until: float) -> int:
    """Return the number of requests from `since` until before `until`.

    :param times: when each request came, seconds, ascending.
    """
    return bisect_left(times, until) - bisect_left(times, since)


def reached(
    times: Sequence[float], rate: float, since: float, until: float, window: float
) -> float | None:
    """Return when the requests first keep to a rate, looking at windows of a length.

    :param times: when each request came, seconds, ascending.
    :param since: the first window's start.
    :param until: the last window's end.
    :returns: the start of the first window that has `rate` requests per second or more; None if
        none has.
    """
    starts = [since, *(at for at in times if since < at)]
    for start in starts:
        if start + window > until:
            return None
        if count_between(times, start, start + window) >= rate * window:
            return start
    return None
