# SPDX-License-Identifier: Apache-2.0
"""Pages of all images that await scrubbing, in whatever state, for people to look at."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from evscrub.registry.claims import read_images
from evscrub.registry.database import Database, read_now, retried
from evscrub.registry.faults import is_of_rows
from evscrub.registry.tables import image_locations, images
from evscrub.rules import DELETED, PENDING_DELETE, ImageRow, LocationRow

HAS_PENDING_LOCATION = (
    sa.select(image_locations.c.id)
    .where(
        image_locations.c.image_id == images.c.id,
        image_locations.c.status == PENDING_DELETE,
    )
    .exists()
)
#: Deleted images that await scrubbing; those that are claimed, or were given back, are `deleted`.
AWAITS_SCRUBBING = sa.and_(
    images.c.deleted == sa.true(),
    sa.or_(
        images.c.status == PENDING_DELETE,
        sa.and_(images.c.status == DELETED, HAS_PENDING_LOCATION),
    ),
)


@dataclass(frozen=True, slots=True)
class Listed:
    """An image as the registry has it, read at the database's time `now`."""

    image: ImageRow
    name: str | None
    locations: tuple[LocationRow, ...]
    now: datetime


class Listing:
    """Reads images that are pending, or have a pending location, by id.

    :param page_rows: images read at once, at least 1.
    :param on_unreadable: told the id of each image whose rows cannot be read.
    """

    def __init__(
        self,
        database: Database,
        page_rows: int = 500,
        on_unreadable: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.database = database
        self.page_rows = page_rows
        self._on_unreadable = on_unreadable

    def read(self, *, owner: str | None = None, held: bool = False) -> Iterator[Listed]:
        """Yield images; each page is a transaction of its own.

        :param owner: only this owner's.
        :param held: only those that have no deletion time.
        """
        last = ""
        while True:
            ids = self._ids(last, owner, held=held)
            yield from self._images(ids)
            if len(ids) < self.page_rows:
                return
            last = ids[-1]

    @retried
    def _ids(self, after: str, owner: str | None, *, held: bool) -> list[str]:
        query = (
            sa.select(images.c.id)
            .where(
                images.c.id > after,
                sa.or_(images.c.status == PENDING_DELETE, HAS_PENDING_LOCATION),
            )
            .order_by(images.c.id)
            .limit(self.page_rows)
        )
        if owner is not None:
            query = query.where(images.c.owner == owner)
        if held:
            query = query.where(images.c.status == PENDING_DELETE, images.c.deleted_at.is_(None))
        with self.database.reading() as connection:
            return list(connection.execute(query).scalars())

    def _images(self, ids: Sequence[str]) -> Iterator[Listed]:
        """Yield images, in halves where one of them cannot be read."""
        try:
            found = self._read(ids)
        except Exception as error:
            if not is_of_rows(error):
                raise
            if len(ids) == 1:
                self._on_unreadable(ids[0])
                return
            middle = len(ids) // 2
            yield from self._images(ids[:middle])
            yield from self._images(ids[middle:])
        else:
            yield from found

    @retried
    def _read(self, ids: Sequence[str]) -> list[Listed]:
        if not ids:
            return []
        with self.database.reading() as connection:
            now = read_now(connection)
            rows = read_images(connection, ids)
            of_names = sa.select(images.c.id, images.c.name).where(images.c.id.in_(ids))
            names = {row.id: row.name for row in connection.execute(of_names)}
        return [
            Listed(rows[image_id][0], names.get(image_id), tuple(rows[image_id][1]), now)
            for image_id in ids
            if image_id in rows  # else it was purged meanwhile
        ]
