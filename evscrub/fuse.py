# SPDX-License-Identifier: Apache-2.0
"""A fuse for a store that says of everything that it is not there.

Pure. An unmounted file store and a bucket of another name do so. Only data that is there proves
that a store is the right one, and only for the part of the store that it was in.
"""

from math import ceil

from evscrub.evidence import Origin, Owner, Scope, Tally
from evscrub.rules import Kind

#: Parts of a store that are kept apart; the one with the fewest images is forgotten first.
_ENDPOINTS = 256


class Fuse:
    """Counts what is not found since something was, for each part of a store.

    :param limit: images not found in a row that are too many to believe; 0 believes any number.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._all: dict[str, Tally] = {}
        #: Without claims taken over: their first owner may have deleted the data, so a run of them
        #: decides only when nothing proves the store in time.
        self._certain: dict[str, Tally] = {}

    def missing(self, origin: Origin, *, of_store: bool) -> Scope | None:
        """Take in that an image's data is not there; returns whose images have to stop at once.

        :param of_store: whether it is a part of the store that may speak for all of it.
        """
        if not self.limit:
            return None
        self._count(self._all, origin)
        if origin.kind is Kind.STALE:
            return None
        return self._verdict(self._count(self._certain, origin), origin.owner, of_store=of_store)

    def unproven(self, endpoint: str, owner: Owner, *, of_store: bool) -> Scope | None:
        """Return whose images have to stop if nothing proves this part of the store any more."""
        tally = self._all.get(endpoint)
        return None if tally is None else self._verdict(tally, owner, of_store=of_store)

    def doubts(self, endpoint: str) -> bool:
        """Return whether too much was not found in this part to believe it without a proof."""
        tally = self._all.get(endpoint)
        return bool(self.limit) and tally is not None and tally.total >= self.limit

    def found(self, endpoint: str) -> None:
        """Take in that this part of the store had an image's data."""
        if self._all:
            self._all.pop(endpoint, None)
            self._certain.pop(endpoint, None)

    def clear(self) -> None:
        """Begin again, as after an operator saw to the store."""
        self._all.clear()
        self._certain.clear()

    def _count(self, tallies: dict[str, Tally], origin: Origin) -> Tally:
        tally = tallies.get(origin.endpoint)
        if tally is None:
            if len(tallies) >= _ENDPOINTS:
                del tallies[min(tallies, key=lambda part: tallies[part].total)]
            # One owner's count for half, so that it takes two of them to blame the store.
            tally = tallies[origin.endpoint] = Tally(self.limit, ceil(self.limit / 2))
        tally.add(origin.owner)
        return tally

    def _verdict(self, tally: Tally, owner: Owner, *, of_store: bool) -> Scope | None:
        if of_store and tally.weight >= self.limit:
            return Scope.STORE
        return Scope.OWNER if tally.of(owner) >= self.limit else None
