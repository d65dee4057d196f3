# SPDX-License-Identifier: Apache-2.0
"""Read all that is known of one image, and what a restore would bring back."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from evscrub.domain import hold_rules
from evscrub.domain.decisions import ImageRow, LocationRow
from evscrub.domain.image_report import Detail, Listed, Restorable
from evscrub.registry.database import Database, read_now, retried
from evscrub.registry.holds import went_with
from evscrub.registry.inventory import children_deleted_at
from evscrub.registry.rows import read_images
from evscrub.registry.tables import bounded, image_members, image_properties, image_tags, images


class Details:
    """Reads single images, and locks nothing."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @retried
    def read(self, image_id: str) -> Detail | None:
        """Return an image; None if the registry does not have it.

        :param image_id: the id in the registry's case.
        :raises ValueError: a row has an invalid date or a location has no URL.
        """
        with self.database.reading() as connection:
            now = read_now(connection)
            rows = read_images(connection, [image_id])
            more = connection.execute(
                sa.select(images.c.name, images.c.created_at).where(images.c.id == image_id)
            ).one_or_none()
            if image_id not in rows or more is None:
                return None
            image, locations = rows[image_id]
            children = children_deleted_at(connection, [image_id]).get(image_id)
            restorable = _restorable(connection, image, locations)
        seen = Listed(image, more.name, tuple(locations), now, children)
        return Detail(seen, more.created_at, restorable)


def _restorable(
    connection: sa.Connection, image: ImageRow, locations: Sequence[LocationRow]
) -> Restorable:
    try:
        deletion = hold_rules.to_restore(image, locations)
    except hold_rules.RefusedError as error:
        return Restorable(refusal=str(error))

    def read(table: sa.Table, *columns: sa.ColumnElement[Any]) -> list[Any]:
        where = went_with(table, image.id, deletion)
        return list(connection.execute(sa.select(*columns).where(*where).order_by(table.c.id)))

    name, value = image_properties.c.name, bounded(image_properties.c.value)
    properties = [(row.name, row.value) for row in read(image_properties, name, value)]
    kept = connection.execute(
        sa.select(name, value).where(
            image_properties.c.image_id == image.id, image_properties.c.deleted == sa.false()
        )
    )
    losses = hold_rules.warnings([*((row.name, row.value) for row in kept), *properties])
    return Restorable(
        status=deletion.status,
        locations=deletion.locations,
        properties=tuple(properties),
        tags=tuple(row.value for row in read(image_tags, image_tags.c.value)),
        members=tuple(row.member for row in read(image_members, image_members.c.member)),
        losses=tuple(losses),
    )
