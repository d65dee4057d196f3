# SPDX-License-Identifier: Apache-2.0
"""Restore, hold and release images, each in one transaction.

The transaction locks the image's row as a claim does, so that only one of the two succeeds; unlike
a claim, it waits for others.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta

import sqlalchemy as sa

from evscrub.domain import hold_rules
from evscrub.domain.decisions import ImageRow, LocationRow
from evscrub.registry.database import Database, read_now, retried
from evscrub.registry.rows import Lock, read_images
from evscrub.registry.tables import (
    image_locations,
    image_members,
    image_properties,
    image_tags,
    images,
)

#: How long before the image a DELETE may have marked the rows of each table.
_CHILDREN = {
    image_properties: hold_rules.PROPERTIES_BEFORE,
    image_tags: timedelta(0),
    image_members: timedelta(0),
}

_Plan = Callable[[ImageRow | None, Sequence[LocationRow]], hold_rules.Deletion]


class Holds:
    """Operations of an operator on single images."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @retried
    def find(self, image_id: str) -> str:
        """Return the id of an image in the case that the registry has.

        Glance keeps the case of the id that an image was created with, and some databases compare
        case-sensitively.

        :param image_id: the id in any case; spaces around it are ignored.
        :raises hold_rules.RefusedError: no image has this id, or several have it in other case and
            none exactly.
        """
        wanted = image_id.strip()
        if not (wanted.isascii() and wanted.isprintable()):
            raise hold_rules.RefusedError("it is not an image id")
        exact = sa.select(images.c.id).where(images.c.id == wanted)
        # This query uses no index; it runs only if the id has another case than in the registry.
        like = sa.select(images.c.id).where(sa.func.lower(images.c.id) == wanted.lower())
        with self.database.reading() as connection:
            found: list[str] = list(connection.execute(exact).scalars())
            if found != [wanted]:
                found = list(connection.execute(like).scalars())
        if wanted in found:
            return wanted
        if len(found) > 1:
            raise hold_rules.RefusedError(
                f"several images have this id in other case: {', '.join(found)}"
            )
        if not found:
            raise hold_rules.RefusedError("it is not in the registry")
        return found[0]

    @retried
    def restore(self, image_id: str) -> list[str]:
        """Restore an image with its locations, properties, tags and members.

        :returns: what could not be restored, a clause each for the operator.
        :raises hold_rules.UnchangedError: the image is not deleted.
        :raises hold_rules.RefusedError: the image cannot be restored.
        """
        with self.database.transaction() as connection:
            deletion = _plan(connection, image_id, hold_rules.to_restore)
            now = read_now(connection)
            for table in _CHILDREN:
                connection.execute(
                    sa.update(table)
                    .where(*went_with(table, image_id, deletion))
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
        """Hold a pending image, so that it is neither scrubbed nor purged until it is released.

        :raises hold_rules.UnchangedError: the image is held already.
        :raises hold_rules.RefusedError: the image is not waiting to be scrubbed.
        """
        with self.database.transaction() as connection:
            deletion = _plan(connection, image_id, hold_rules.to_hold)
            _set_times(connection, image_id, deletion, held=True)

    @retried
    def release(self, image_id: str) -> None:
        """Release a held image: it is due once the whole delay has passed from now.

        :raises hold_rules.UnchangedError: the image is pending and not held.
        :raises hold_rules.RefusedError: the image is not pending.
        """
        with self.database.transaction() as connection:
            deletion = _plan(connection, image_id, hold_rules.to_release)
            _set_times(connection, image_id, deletion, held=False)


def _plan(connection: sa.Connection, image_id: str, plan: _Plan) -> hold_rules.Deletion:
    rows = read_images(connection, [image_id], Lock.ALL)
    image, locations = rows.get(image_id, (None, []))
    return plan(image, locations)


def went_with(
    table: sa.Table, image_id: str, deletion: hold_rules.Deletion
) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the condition for rows that the DELETE of the image marked."""
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
            sa.update(table).where(*went_with(table, image_id, deletion)).values(deleted_at=time)
        )
    connection.execute(
        sa.update(image_locations)
        .where(image_locations.c.id.in_([row.id for row in deletion.locations]))
        .values(deleted_at=None if time is None else time + hold_rules.RELEASED_AFTER)
    )
    connection.execute(
        sa.update(images).where(images.c.id == image_id).values(deleted_at=time, updated_at=now)
    )
