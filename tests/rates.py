# SPDX-License-Identifier: Apache-2.0
"""What the moments of requests say of the rate that they keep to. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """A window of time between two requests, both of them in it.

    :param above: how many more requests it has than a rate allows; below 0 if it has fewer.
    """

    since: float
    until: float
    above: float


def busiest(times: Sequence[float], rate: float, burst: float) -> Window:
    """Return the window, of any length, that is most above ``burst + rate * t``.

    The cost grows with the number of requests alone.

    :param times: when each request came, seconds, ascending; at least one.
    :param rate: requests per second.
    """
    # A window from the i-th to the j-th has j - i + 1 requests.
    lowest, since = float("inf"), times[0]
    found = Window(since, since, float("-inf"))
    for number, at in enumerate(times):
        level = number - rate * at
        if level < lowest:
            lowest, since = level, at
        above = level - lowest + 1 - burst
        if above > found.above:
            found = Window(since, at, above)
    return found


def most_above(times: Sequence[float], rate: float, burst: float) -> float:
    """Return by how much the busiest window is above ``burst + rate * t``; below 0 if none is.

    Parameters are those of :func:`busiest`.
    """
    return busiest(times, rate, burst).above


def longest_way(steps: Iterable[tuple[float, str, object]], most: float) -> float:
    """Return the longest time between the two requests of one delete, in seconds.

    The s3 driver looks for an object right before it deletes it: what lies between is the
    machine's. Deletes that come in late come in together with others.

    :param steps: when each request came, in order, its method, and what it was for.
    :param most: longer ones do not count.
    """
    looked: dict[object, float] = {}
    longest = 0.0
    for at, method, what in steps:
        if method == "HEAD":
            looked[what] = at
        elif method == "DELETE" and what in looked:
            way = at - looked[what]
            longest = max(longest, way if way < most else 0.0)
    return longest


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
