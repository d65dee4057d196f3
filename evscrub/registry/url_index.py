# SPDX-License-Identifier: Apache-2.0
"""An index of location ids by object, at eight bytes an entry: a registry may have millions."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator

#: Glance's location ids are 32-bit integers. An entry is 32 bits of the key's hash and the id.
_ID_BITS = 32
_MASK = (1 << _ID_BITS) - 1


class UrlIndex:
    """Finds location ids by the key of their object.

    :param pairs: ids, below 2**32, and the keys of their objects.
    """

    def __init__(self, pairs: Iterable[tuple[int, str]] = ()) -> None:
        # Collected in an array: a set of as many integers takes ten times the memory.
        keys = array("Q", (_first_key(text) | number for number, text in pairs))
        self._keys = array("Q", sorted(keys))

    def ids(self, text: str) -> Iterator[int]:
        """Yield all ids with this key, and rarely an id of another key with the same hash."""
        first = _first_key(text)
        at = bisect_left(self._keys, first)
        while at < len(self._keys) and self._keys[at] <= first | _MASK:
            yield self._keys[at] & _MASK
            at += 1

    def update(self, pairs: Iterable[tuple[int, str]]) -> None:
        """Add a few ids and their keys; entries that are present already are ignored."""
        for number, text in pairs:
            key = _first_key(text) | number
            at = bisect_left(self._keys, key)
            if at == len(self._keys) or self._keys[at] != key:
                self._keys.insert(at, key)


def _first_key(text: str) -> int:
    return (hash(text) & _MASK) << _ID_BITS
