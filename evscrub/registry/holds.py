# SPDX-License-Identifier: Apache-2.0
"""Restore, hold and release images in the registry, each in one transaction.

The image's row is locked as a claim locks it, so that only one of the two happens.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta

import sqlalchemy as sa

from evscrub.domain import hold_rules
from evscrub.domain.decisions import ImageRow, LocationRow
from evscrub.registry.database import Database, read_now, retried
from evscrub.registry.rows import read_images
from evscrub.registry.tables import (
    image_locations,
    image_members,
    image_properties,
    image_tags,
    images,
)

#: How long before their image the rows of one DELETE may have gone.
_CHILDREN = {
    image_properties: hold_rules.PROPERTIES_BEFORE,
    image_tags: timedelta(0),
    image_members: timedelta(0),
}

_Plan = Callable[[ImageRow | None, Sequence[LocationRow]], hold_rules.Deletion]


class Holds:
    """What an operator does to single images."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @retried
    def find(self, image_id: str) -> str:
        """Return an image's id as the registry writes it.

        Glance keeps the letters that an id was created with, and some databases compare with case.

        :param image_id: the id in any letters, as a person copied it.
        :raises hold_rules.RefusedError: no image has it, or several do, and none of them exactly.
        """
        wanted = image_id.strip()
        if not (wanted.isascii() and wanted.isprintable()):
            raise hold_rules.RefusedError("it is no image id")
        exact = sa.select(images.c.id).where(images.c.id == wanted)
        # Without an index, but only where the id is not written as in the registry.
        like = sa.select(images.c.id).where(sa.func.lower(images.c.id) == wanted.lower())
        with self.database.reading() as connection:
            found: list[str] = list(connection.execute(exact).scalars())
            if found != [wanted]:
                found = list(connection.execute(like).scalars())
        if wanted in found:
            return wanted
        if len(found) > 1:
            raise hold_rules.RefusedError(
                f"several images have it in other letters: {', '.join(found)}"
            )
        if not found:
            raise hold_rules.RefusedError("it is not in the registry")
        return found[0]

    @retried
    def restore(self, image_id: str) -> list[str]:
        """Bring an image back whole: active, with its locations, properties, tags and members.

        :returns: what could not come back.
        :raises hold_rules.RefusedError: it cannot be restored.
        """
        with self.database.transaction() as connection:
            deletion = _plan(connection, image_id, hold_rules.to_restore)
            now = read_now(connection)
            for table in _CHILDREN:
                connection.execute(
                    sa.update(table)
                    .where(*_went_with(table, image_id, deletion))
                    .values(deleted=False, deleted_at=None)
                )
            connection.execute(
                sa.update(image_locations)
                .where(image_locations.c.id.in_([row.id for row in deletion.locations]))
                .values(status="active", deleted=False, deleted_at=None, updated_at=now)
            )
            connection.execute(
                sa.update(images)
                .where(images.c.id == image_id)
                .values(status=deletion.status, deleted=False, deleted_at=None, updated_at=now)
            )
            properties = connection.execute(
                sa.select(image_properties.c.name, image_properties.c.value).where(
                    image_properties.c.image_id == image_id,
                    image_properties.c.deleted == sa.false(),
                )
            ).all()
        return hold_rules.warnings([(row.name, row.value) for row in properties])

    @retried
    def hold(self, image_id: str) -> None:
        """Keep a pending image from being scrubbed, or purged, until it is released.

        :raises hold_rules.RefusedError: it is not waiting to be scrubbed.
        """
        with self.database.transaction() as connection:
            deletion = _plan(connection, image_id, hold_rules.to_hold)
            _set_times(connection, image_id, deletion, held=True)

    @retried
    def release(self, image_id: str) -> None:
        """Let a held image be scrubbed again, its whole delay from now.

        :raises hold_rules.RefusedError: it is not held.
        """
        with self.database.transaction() as connection:
            deletion = _plan(connection, image_id, hold_rules.to_release)
            _set_times(connection, image_id, deletion, held=False)


def _plan(connection: sa.Connection, image_id: str, plan: _Plan) -> hold_rules.Deletion:
    rows = read_images(connection, [image_id], lock=True, skip_locked=False)
    image, locations = rows.get(image_id, (None, []))
    return plan(image, locations)


def _went_with(
    table: sa.Table, image_id: str, deletion: hold_rules.Deletion
) -> tuple[sa.ColumnElement[bool], ...]:
    """Rows that were deleted in the same DELETE."""
    time, at = table.c.deleted_at, deletion.at
    when = time.is_(None)
    if at is not None:
        when = time.between(at - _CHILDREN[table], at + hold_rules.AFTER)
    return (table.c.image_id == image_id, table.c.deleted == sa.true(), when)


def _set_times(
    connection: sa.Connection, image_id: str, deletion: hold_rules.Deletion, *, held: bool
) -> None:
    now = read_now(connection)
    time = None if held else now
    for table in _CHILDREN:
        connection.execute(
            sa.update(table).where(*_went_with(table, image_id, deletion)).values(deleted_at=time)
        )
    connection.execute(
        sa.update(image_locations)
        .where(image_locations.c.id.in_([row.id for row in deletion.locations]))
        .values(deleted_at=None if time is None else time + hold_rules.RELEASED_AFTER)
    )
    connection.execute(
        sa.update(images).where(images.c.id == image_id).values(deleted_at=time, updated_at=now)
    )
