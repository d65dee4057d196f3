# SPDX-License-Identifier: Apache-2.0
"""Finds live images whose data a part of a store must have."""

from collections.abc import Callable, Collection, Sequence

import sqlalchemy as sa

from evscrub.registry.database import Database, retried
from evscrub.registry.rows import LOCATION_COLUMNS, location_row
from evscrub.registry.tables import image_locations, images
from evscrub.rules import ACTIVE, LocationRow
from evscrub.stores import Target
from evscrub.verdict import StoreNotUsableError
from evscrub.witnesses import Witness

#: No more are asked for: where all of them are absent, others are too.
_ENOUGH = 3


class LiveImages:
    """Looks up locations that were seen live, as they are now.

    :param ids: returns ids of some locations in a part of a store, which were live when seen.
    :param resolve: as :meth:`evscrub.stores.Stores.resolve`.
    """

    def __init__(
        self,
        database: Database,
        ids: Callable[[str], Collection[int]],
        resolve: Callable[[LocationRow], Target],
    ) -> None:
        self.database = database
        self._ids = ids
        self._resolve = resolve

    @retried
    def find(self, store: str, part: str) -> list[Witness]:
        """Return witnesses in a part of a store; none where none is known.

        They are of different owners and ages, as far as there are such.

        :param part: see :func:`evscrub.object_identity.endpoint`.
        """
        ids = list(self._ids(part))
        if not ids:
            return []
        query = (
            sa.select(*LOCATION_COLUMNS, images.c.size, images.c.owner)
            .join(images, images.c.id == image_locations.c.image_id)
            .where(
                image_locations.c.id.in_(ids),
                image_locations.c.deleted == sa.false(),
                image_locations.c.status == ACTIVE,
                images.c.deleted == sa.false(),
                images.c.status == ACTIVE,
                images.c.size > 0,
            )
        )
        with self.database.reading() as connection:
            rows = {row.id: row for row in connection.execute(query)}
        found = []
        for number in ids:
            row = rows.get(number)
            if row is None:
                continue
            try:
                target = self._resolve(location_row(row[: len(LOCATION_COLUMNS)]))
            except (StoreNotUsableError, ValueError):
                continue
            if target.store == store and target.endpoint == part:
                found.append(Witness(row.image_id, target, row.size, row.owner))
        return _choose(found)


def _choose(found: Sequence[Witness]) -> list[Witness]:
    """Choose one of each owner first, the newest and the last, which is of any age."""
    by_owner = {witness.owner: witness for witness in reversed(found)}
    chosen = list(by_owner.values())[::-1]
    if len(chosen) < _ENOUGH:
        chosen += [witness for witness in found if witness not in chosen]
    return chosen if len(chosen) <= _ENOUGH else [*chosen[: _ENOUGH - 1], chosen[-1]]
