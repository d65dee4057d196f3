# SPDX-License-Identifier: Apache-2.0
"""An index of location ids by object, at nine bytes an entry: a registry may have millions."""

from array import array
from bisect import bisect_left
from collections.abc import Iterator

#: Glance's location ids are 32-bit integers. An entry is 32 bits of the key's hash and the id.
_ID_BITS = 32
_MASK = (1 << _ID_BITS) - 1
#: Entries are in sorted arrays by their first bits, so that an insertion moves few other entries.
_ARRAY_BITS = 12
_SHIFT = 2 * _ID_BITS - _ARRAY_BITS


class UrlIndex:
    """Finds location ids by the key of their object."""

    def __init__(self) -> None:
        self._arrays = [array("Q") for _ in range(1 << _ARRAY_BITS)]

    def ids(self, text: str) -> Iterator[int]:
        """Yield all ids with this key, and rarely an id of another key with the same hash."""
        first = _first_entry(text)
        entries = self._arrays[first >> _SHIFT]
        at = bisect_left(entries, first)
        while at < len(entries) and entries[at] <= first | _MASK:
            yield entries[at] & _MASK
            at += 1

    def add(self, number: int, text: str) -> None:
        """Add an id, below 2**32, with the key of its object, unless it is there already."""
        entry = _first_entry(text) | number
        entries = self._arrays[entry >> _SHIFT]
        at = bisect_left(entries, entry)
        if at == len(entries) or entries[at] != entry:
            entries.insert(at, entry)


def _first_entry(text: str) -> int:
    return (hash(text) & _MASK) << _ID_BITS
