# SPDX-License-Identifier: Apache-2.0
"""Pages of all images that await scrubbing, in whatever state, for people to look at."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa

from evscrub.listing import Listed
from evscrub.registry.claims import IMAGE_COLUMNS, LOCATION_COLUMNS, named_store
from evscrub.registry.database import Database, read_now, retried
from evscrub.registry.tables import (
    image_locations,
    image_members,
    image_properties,
    image_tags,
    images,
)
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
            page = self._page(last, owner, only_held=held)
            yield from page
            if len(page) < self.page_rows:
                return
            last = page[-1].image.id

    @retried
    def _page(self, after: str, owner: str | None, *, only_held: bool) -> list[Listed]:
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
        if only_held:
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
            held = [
                row.id for row in rows if row.status == PENDING_DELETE and row.deleted_at is None
            ]
            children = _children_deleted_at(connection, held)
        return [
            Listed(ImageRow(*image), name, tuple(locations[image[0]]), now, children.get(image[0]))
            for *image, name in rows
        ]


def _children_deleted_at(connection: sa.Connection, held: Sequence[str]) -> dict[str, datetime]:
    """Read when children of held images were deleted, the latest of each image."""
    found: dict[str, datetime] = {}
    if not held:
        return found
    for table in (image_properties, image_tags, image_members):
        query = (
            sa.select(table.c.image_id, sa.func.max(table.c.deleted_at))
            .where(table.c.image_id.in_(held), table.c.deleted == sa.true())
            .group_by(table.c.image_id)
        )
        for image_id, at in connection.execute(query):
            if at is not None:
                found[image_id] = max(at, found.get(image_id, at))
    return found
