# SPDX-License-Identifier: Apache-2.0
"""Finds live images whose data a part of a store must have."""

from collections.abc import Callable, Collection, Mapping, Sequence

from evscrub.domain.decisions import LocationRow
from evscrub.domain.verdict import StoreNotUsableError
from evscrub.registry.live_images import LiveLocation
from evscrub.scrubbing.witnesses import Witness
from evscrub.stores.backends import Target

#: No more are asked for: where all of them are absent, others are too.
_ENOUGH = 3


class WitnessFinder:
    """Finds witnesses among locations that were seen live.

    :param ids: returns ids of some locations in a part of a store, which were live when seen.
    :param read: as :meth:`evscrub.registry.live_images.LiveImages.read`.
    :param resolve: as :meth:`evscrub.stores.backends.Stores.resolve`.
    """

    def __init__(
        self,
        ids: Callable[[str], Collection[int]],
        read: Callable[[Collection[int]], Mapping[int, LiveLocation]],
        resolve: Callable[[LocationRow], Target],
    ) -> None:
        self._ids = ids
        self._read = read
        self._resolve = resolve

    def find(self, store: str, part: str) -> list[Witness]:
        """Return witnesses in a part of a store; none where none is known. Blocks.

        They are of different owners and ages, as far as there are such.

        :param part: see :func:`evscrub.domain.object_identity.endpoint`.
        """
        ids = list(self._ids(part))
        live = self._read(ids) if ids else {}
        found = []
        for number in ids:
            if number not in live:
                continue
            image_id, row, size_bytes, owner = live[number]
            try:
                target = self._resolve(row)
            except (StoreNotUsableError, ValueError):
                continue
            if target.store == store and target.endpoint == part:
                found.append(Witness(image_id, target, size_bytes, owner))
        return _choose(found)


def _choose(found: Sequence[Witness]) -> list[Witness]:
    """Choose one of each owner first, the newest and the last, which is of any age."""
    by_owner = {witness.owner: witness for witness in reversed(found)}
    chosen = list(by_owner.values())[::-1]
    if len(chosen) < _ENOUGH:
        chosen += [witness for witness in found if witness not in chosen]
    return chosen if len(chosen) <= _ENOUGH else [*chosen[: _ENOUGH - 1], chosen[-1]]
