# SPDX-License-Identifier: Apache-2.0
"""Finds witnesses: live images whose data must be in a given part of a store."""

from collections.abc import Callable, Collection, Mapping, Sequence

from evscrub.domain.decisions import LocationRow
from evscrub.domain.verdict import StoreNotUsableError
from evscrub.registry.live_images import LiveLocation
from evscrub.scrubbing.witnesses import Witness
from evscrub.stores.backends import Target

#: Witnesses to return at most: if these are absent, more would not change the result.
_ENOUGH = 4


class WitnessFinder:
    """Finds witnesses among locations that were seen live.

    :param ids: returns ids of some locations in a part of a store, live when they were last read.
    :param read: see :meth:`evscrub.registry.live_images.LiveImages.read`.
    :param resolve: see :meth:`evscrub.stores.backends.Stores.resolve`.
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
        """Return up to four witnesses in a part of a store, the oldest first; blocks.

        :param part: see :func:`evscrub.domain.object_identity.endpoint`.
        :returns: empty if no live image is known.
        """
        ids = self._ids(part)
        live = self._read(ids) if ids else {}
        found = []
        for _, (image_id, row, size_bytes, owner) in sorted(live.items()):
            try:
                target = self._resolve(row)
            except (StoreNotUsableError, ValueError):
                continue
            if target.store == store and target.endpoint == part:
                found.append(Witness(image_id, row.id, target, size_bytes, owner))
        return _choose(found)


def _choose(found: Sequence[Witness]) -> list[Witness]:
    """Choose the oldest witness, the next one of another owner, one in the middle and the newest.

    Where an old image was lost, the next one is there; where many old images were lost, or a file
    system is missing below new ones, the others tell. What one owner wrote is no evidence alone.

    :param found: in ascending order; so is the result.
    """
    if len(found) <= _ENOUGH:
        return list(found)
    others = (witness for witness in found if witness.owner != found[0].owner)
    chosen = {found[0], next(others, found[1]), found[len(found) // 2], found[-1]}
    return [witness for witness in found if witness in chosen]
