# SPDX-License-Identifier: Apache-2.0
"""Pages of all images that await scrubbing, in whatever state, for people to look at."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from evscrub.registry.claims import IMAGE_COLUMNS, LOCATION_COLUMNS, named_store
from evscrub.registry.database import Database, read_now, retried
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
    """

    def __init__(self, database: Database, page_rows: int = 500) -> None:
        self.database = database
        self.page_rows = page_rows

    def read(self, *, owner: str | None = None, held: bool = False) -> Iterator[Listed]:
        """Yield images; each page is a transaction of its own.

        :param owner: only this owner's.
        :param held: only those that have no deletion time.
        """
        last = ""
        while True:
            page = self._page(last, owner, held=held)
            yield from page
            if len(page) < self.page_rows:
                return
            last = page[-1].image.id

    @retried
    def _page(self, after: str, owner: str | None, *, held: bool) -> list[Listed]:
        query = (
            sa.select(*IMAGE_COLUMNS, images.c.name)
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
            now = read_now(connection)
            rows = connection.execute(query).all()
            locations: dict[str, list[LocationRow]] = {row.id: [] for row in rows}
            of_images = (
                sa.select(*LOCATION_COLUMNS)
                .where(image_locations.c.image_id.in_(list(locations)))
                .order_by(image_locations.c.id)
            )
            for image_id, number, value, metadata, *rest in connection.execute(of_images).all():
                row = LocationRow(number, value, named_store(metadata), *rest)
                locations[image_id].append(row)
        return [
            Listed(ImageRow(*image), name, tuple(locations[image[0]]), now) for *image, name in rows
        ]
