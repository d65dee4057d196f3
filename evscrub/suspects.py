# SPDX-License-Identifier: Apache-2.0
"""Claimed images whose data was not found, until something proves their store. Pure."""

from collections.abc import Iterator

from evscrub.work import Work


class Suspects:
    """Works held back, by the part of the store that has to be proven next for them.

    :param seconds: how long the last "not found" of a part waits for a proof.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._parts: dict[str, list[Work]] = {}
        self._last: dict[str, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._parts.values()))

    def add(self, work: Work, now: float) -> None:
        """Hold a work back.

        :param work: one with doubts.
        :param now: seconds since boot.
        """
        endpoint = work.doubted_endpoint
        self._parts.setdefault(endpoint, []).append(work)
        self._last[endpoint] = now

    def take(self, endpoint: str) -> list[Work]:
        """Release the works that wait for this part."""
        if not self._parts:
            return []
        self._last.pop(endpoint, None)
        return self._parts.pop(endpoint, [])

    def take_all(self) -> list[Work]:
        """Release all works."""
        works = [work for part in self._parts.values() for work in part]
        self._parts.clear()
        self._last.clear()
        return works

    def overdue(self, now: float) -> Iterator[str]:
        """Yield the parts that nothing has proven in time.

        All works of a part wait for its last: those of a slow store come one after another.
        """
        for endpoint, last in list(self._last.items()):
            if now >= last + self._seconds:
                yield endpoint

    def next_at(self) -> float | None:
        """Return when the next part is overdue, seconds since boot; None without works."""
        return min(self._last.values()) + self._seconds if self._last else None
