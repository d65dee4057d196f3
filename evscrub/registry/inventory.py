# SPDX-License-Identifier: Apache-2.0
"""List all images that await scrubbing, in whatever state, for people to look at."""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa

from evscrub.domain.decisions import DELETED, PENDING_DELETE
from evscrub.domain.image_report import Listed
from evscrub.registry.database import Database, read_now, retried
from evscrub.registry.faults import is_of_rows
from evscrub.registry.paging import keyset_pages
from evscrub.registry.rows import read_images
from evscrub.registry.tables import (
    image_locations,
    image_members,
    image_properties,
    image_tags,
    images,
)

HAS_PENDING_LOCATION = (
    sa.select(image_locations.c.id)
    .where(
        image_locations.c.image_id == images.c.id,
        image_locations.c.status == PENDING_DELETE,
    )
    .exists()
)
#: Deleted images that await scrubbing. Claimed images, and those handed back with their data in
#: doubt, have the status ``deleted``.
AWAITS_SCRUBBING = sa.and_(
    images.c.deleted == sa.true(),
    sa.or_(
        images.c.status == PENDING_DELETE,
        sa.and_(images.c.status == DELETED, HAS_PENDING_LOCATION),
    ),
)


class Inventory:
    """Reads images that are pending or have a pending location, in the order of their ids.

    :param page_rows: images of a page, at least 1.
    :param on_unreadable: called with the id of each image whose rows cannot be read.
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

    def read(
        self,
        *,
        owner: str | None = None,
        held: bool = False,
        only: Collection[str] | None = None,
    ) -> Iterator[Listed]:
        """Yield images; each page is a separate transaction.

        :param owner: yield only this owner's images.
        :param held: yield only images on hold, which have no deletion time.
        :param only: yield only images with these ids.
        """

        def read(last: str) -> list[str]:
            return self._ids(last, owner, only, only_held=held)

        for ids in keyset_pages(read, str, "", self.page_rows):
            yield from self._images(ids)

    @retried
    def _ids(
        self, after: str, owner: str | None, only: Collection[str] | None, *, only_held: bool
    ) -> list[str]:
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
        if only is not None:
            query = query.where(images.c.id.in_(only))
        if only_held:
            query = query.where(images.c.status == PENDING_DELETE, images.c.deleted_at.is_(None))
        with self.database.reading() as connection:
            return list(connection.execute(query).scalars())

    def _images(self, ids: Sequence[str]) -> Iterator[Listed]:
        """Yield images; if one of them cannot be read, bisect to it."""
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
            held = [
                image.id
                for image, _ in rows.values()
                if image.status == PENDING_DELETE and image.deleted_at is None
            ]
            children = _children_deleted_at(connection, held)
        return [
            Listed(image, names.get(image_id), tuple(locations), now, children.get(image_id))
            for image_id in ids
            if image_id in rows  # else it was purged since its id was read
            for image, locations in [rows[image_id]]
        ]


def _children_deleted_at(connection: sa.Connection, held: Sequence[str]) -> dict[str, datetime]:
    """Return the latest deletion time of the children of each of the held images."""
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
