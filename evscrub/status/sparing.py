# SPDX-License-Identifier: Apache-2.0
"""Keeps a look at a large state from being taken more often than it is worth."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Sparing(Generic[T]):
    """A value that is made again only when it is old enough for what making it costs.

    :param make: makes the value.
    :param clock: seconds, for both the cost and the age.
    :param share: the part of the time that may be spent on making it.
    """

    def __init__(self, make: Callable[[], T], clock: Callable[[], float], share: float) -> None:
        self._make = make
        self._clock = clock
        self._share = share
        self._value: T
        self._stale_at = float("-inf")

    def get(self) -> T:
        """The value, as new as the share of time allows."""
        now = self._clock()
        if now >= self._stale_at:
            self._value = self._make()
            done = self._clock()
            self._stale_at = done + (done - now) / self._share
        return self._value
