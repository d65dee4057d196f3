# SPDX-License-Identifier: Apache-2.0
"""Read the images that a sweep must look at, in pages.

Each query uses an index of Glance's: ``images.deleted`` and ``image_locations.deleted`` with the
primary key for a full sweep, ``images.updated_at`` for recent changes. MariaDB uses the first two
for ``deleted = true`` but not for ``deleted IS true``. A row that vanishes between pages was purged
by Glance and is no error.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from evscrub.domain.decisions import PENDING_DELETE
from evscrub.registry.database import Database, retried
from evscrub.registry.paging import keyset_pages
from evscrub.registry.tables import image_locations, images

#: A date outside this range is invalid in Python or overflows in arithmetic, and a driver may raise
#: as it reads one. Such images are found without a date and looked at one by one.
_FIRST, _LAST = datetime(1000, 1, 1), datetime(9999, 1, 1)  # noqa: DTZ001 - the registry's are naive
_DELETED_AT = sa.case(
    (images.c.deleted_at.between(_FIRST, _LAST), images.c.deleted_at), else_=sa.null()
).label("deleted_at")


class Found(NamedTuple):
    """An image that a sweep found.

    :param deleted_at: naive UTC; None if the image is not pending delete or its date is invalid.
    """

    image_id: str
    owner: str | None
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Window:
    """Which images a sweep looks for; times are naive UTC by the database's clock.

    :param deleted_before: find pending images that were deleted no later than this.
    :param stale_before: find other images with a pending location that was last stamped no later
        than this.
    :param changed_since: find only images that changed since then; None reads the whole registry.
    :param start_at: image id at which a sweep of the whole registry starts; lower ids come last.
    """

    deleted_before: datetime
    stale_before: datetime
    changed_since: datetime | None = None
    start_at: str = ""


class Pages:
    """Reads the registry page by page.

    :param page_rows: rows of a page, at least 1.
    """

    def __init__(self, database: Database, page_rows: int) -> None:
        self.database = database
        self.page_rows = page_rows

    @retried
    def now(self) -> datetime:
        """Return the database's time, naive UTC."""
        return self.database.now()

    def read(self, window: Window) -> Iterator[list[Found]]:
        """Yield pages of images to look at; each page is a separate transaction."""
        if window.changed_since is not None:
            yield from self._changed(window, window.changed_since)
            return
        pending = (
            images.c.deleted == sa.true(),
            images.c.status == PENDING_DELETE,
            images.c.deleted_at <= window.deleted_before,
        )
        query = sa.select(images.c.id, images.c.owner, _DELETED_AT).where(*pending)
        yield from self._by_id(query.where(images.c.id >= window.start_at))
        if window.start_at:
            yield from self._by_id(query.where(images.c.id < window.start_at))
        yield from self._leftovers(window)

    def _by_id(self, query: "sa.Select[Any]") -> Iterator[list[Found]]:
        def read(last: str) -> list[Any]:
            return self._page(query.where(images.c.id > last).order_by(images.c.id))

        for page in keyset_pages(read, lambda row: str(row.id), "", self.page_rows):
            yield [Found(row.id, row.owner, _time(row.deleted_at)) for row in page]

    def _leftovers(self, window: Window) -> Iterator[list[Found]]:
        """Yield pages of images with expired claims, orphans or an incomplete DELETE."""

        def read(last: int) -> list[Any]:
            return self._page(
                sa.select(image_locations.c.id, images.c.id, images.c.owner)
                .join_from(image_locations, images, image_locations.c.image_id == images.c.id)
                .where(
                    image_locations.c.id > last,
                    image_locations.c.deleted == sa.true(),
                    image_locations.c.status == PENDING_DELETE,
                    image_locations.c.updated_at <= window.stale_before,
                    sa.or_(images.c.status != PENDING_DELETE, images.c.deleted == sa.false()),
                )
                .order_by(image_locations.c.id)
            )

        for page in keyset_pages(read, lambda row: int(row[0]), 0, self.page_rows):
            yield [Found(image_id, owner, None) for _, image_id, owner in page]

    def _changed(self, window: Window, since: datetime) -> Iterator[list[Found]]:
        # A scalar, not EXISTS: for EXISTS PostgreSQL hashes all pending locations at each page.
        leftover = (
            sa.select(image_locations.c.id)
            .where(
                image_locations.c.image_id == images.c.id,
                image_locations.c.status == PENDING_DELETE,
                image_locations.c.updated_at <= window.stale_before,
            )
            .limit(1)
            .scalar_subquery()
        )

        def read(last: tuple[datetime, str]) -> list[Any]:
            moment, image_id = last
            return self._page(
                sa.select(
                    images.c.id,
                    images.c.owner,
                    _DELETED_AT,
                    images.c.updated_at,
                    images.c.status,
                )
                .where(
                    images.c.updated_at >= moment,
                    images.c.updated_at < _LAST,
                    sa.or_(images.c.updated_at > moment, images.c.id > image_id),
                    sa.case(
                        (
                            images.c.status == PENDING_DELETE,
                            images.c.deleted_at <= window.deleted_before,
                        ),
                        else_=leftover.is_not(None),
                    ),
                )
                .order_by(images.c.updated_at, images.c.id)
            )

        for page in keyset_pages(
            read, lambda row: (row.updated_at, row.id), (since, ""), self.page_rows
        ):
            yield [
                Found(
                    row.id,
                    row.owner,
                    _time(row.deleted_at) if row.status == PENDING_DELETE else None,
                )
                for row in page
            ]

    @retried
    def _page(self, query: "sa.Select[Any]") -> list[Any]:
        with self.database.reading() as connection:
            return list(connection.execute(query.limit(self.page_rows)))


def _time(value: object) -> datetime | None:
    """Return a date, or None for the text that drivers return for MySQL's invalid dates."""
    return value if isinstance(value, datetime) else None
