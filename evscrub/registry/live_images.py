# SPDX-License-Identifier: Apache-2.0
"""Read live locations of active images, which may serve as witnesses."""

from collections.abc import Collection
from typing import NamedTuple

import sqlalchemy as sa

from evscrub.domain.decisions import ACTIVE, LocationRow
from evscrub.registry.database import Database, retried
from evscrub.registry.rows import LOCATION_COLUMNS, location_row
from evscrub.registry.tables import image_locations, images


class LiveLocation(NamedTuple):
    """A live location of an active image that has data.

    :param size_bytes: size of the image's data, more than 0.
    :param owner: project that the image belongs to.
    """

    image_id: str
    row: LocationRow
    size_bytes: int
    owner: str | None


class LiveImages:
    """Reads live locations by id."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @retried
    def read(self, ids: Collection[int]) -> dict[int, LiveLocation]:
        """Return those of the given locations that are live now, by id.

        :raises oslo_db.exception.DBError: the database cannot be read.
        :raises ValueError: a row has an invalid date or no URL.
        """
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
            return {
                row.id: LiveLocation(row.image_id, location_row(row), row.size, row.owner)
                for row in connection.execute(query)
            }
