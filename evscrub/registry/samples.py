# SPDX-License-Identifier: Apache-2.0
"""Sample a few ids of each kind from a stream of millions. Pure."""

from collections import deque
from collections.abc import Callable

_OLDEST = 4
_NEWEST = 4
_BY_CHANCE = 4
_KINDS = 256


class _Sample:
    __slots__ = ("by_chance", "count", "newest", "oldest")

    def __init__(self) -> None:
        self.count = 0
        self.oldest: list[int] = []
        self.newest: deque[int] = deque(maxlen=_NEWEST)
        self.by_chance: list[int] = []


class Samples:
    """The four oldest and four newest ids of each kind, and four drawn uniformly from all of them.

    At most 256 kinds are kept; when there are more, the kind with the fewest ids is dropped.

    :param randrange: draws an integer from 0 up to its argument, exclusive, as
        :func:`random.randrange`.
    """

    def __init__(self, randrange: Callable[[int], int]) -> None:
        self._randrange = randrange
        self._samples: dict[str, _Sample] = {}

    def add(self, kind: str, number: int) -> None:
        """Add an id; the ids of a kind must come in ascending order."""
        sample = self._samples.get(kind)
        if sample is None:
            if len(self._samples) >= _KINDS:
                least = min(self._samples, key=lambda known: self._samples[known].count)
                del self._samples[least]
            sample = self._samples[kind] = _Sample()
        sample.count += 1
        if len(sample.oldest) < _OLDEST:
            sample.oldest.append(number)
        sample.newest.append(number)
        if len(sample.by_chance) < _BY_CHANCE:
            sample.by_chance.append(number)
        elif (at := self._randrange(sample.count)) < _BY_CHANCE:
            sample.by_chance[at] = number

    def of(self, kind: str) -> list[int]:
        """Return the sampled ids of a kind in ascending order."""
        sample = self._samples.get(kind)
        if sample is None:
            return []
        return sorted({*sample.oldest, *sample.by_chance, *sample.newest})
