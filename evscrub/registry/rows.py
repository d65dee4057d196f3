# SPDX-License-Identifier: Apache-2.0
"""Read images and their locations, and reject rows with invalid values."""

import enum
import functools
import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from evscrub.domain.decisions import ImageRow, LocationRow
from evscrub.registry.tables import bounded, image_locations, images

IMAGE_COLUMNS = (
    images.c.id,
    images.c.owner,
    images.c.size,
    images.c.status,
    images.c.deleted,
    images.c.deleted_at,
    images.c.updated_at,
)
LOCATION_COLUMNS = (
    image_locations.c.image_id,
    image_locations.c.id,
    bounded(image_locations.c.value),
    bounded(image_locations.c.meta_data),
    image_locations.c.status,
    image_locations.c.deleted,
    image_locations.c.deleted_at,
    image_locations.c.updated_at,
)
_LOCATION_WIDTH = len(LOCATION_COLUMNS)

Rows = dict[str, tuple[ImageRow, list[LocationRow]]]


class Lock(enum.Enum):
    """Which rows a read locks until its transaction ends."""

    NONE = enum.auto()
    #: Images, without those that another transaction has locked.
    FREE_IMAGES = enum.auto()
    #: Images and locations, waiting for other transactions.
    ALL = enum.auto()


def read_images(
    connection: sa.Connection, image_ids: Collection[str], lock: Lock = Lock.NONE
) -> Rows:
    """Read images and all of their locations.

    :raises ValueError: a row has an invalid date or a location has no URL.
    """
    of_images = sa.select(*IMAGE_COLUMNS).where(images.c.id.in_(image_ids))
    of_locations = sa.select(*LOCATION_COLUMNS).order_by(image_locations.c.id)
    if lock is not Lock.NONE:
        of_images = of_images.with_for_update(skip_locked=lock is Lock.FREE_IMAGES)
    if lock is Lock.ALL:
        of_locations = of_locations.with_for_update()
    wanted = set(image_ids)  # a case-insensitive database also finds other ids
    found: Rows = {
        row.id: (image_row(row), [])
        for row in connection.execute(of_images).all()
        if row.id in wanted
    }
    if found:
        where = image_locations.c.image_id.in_(list(found))
        for row in connection.execute(of_locations.where(where)).all():
            image_id = row.image_id
            if image_id not in found:
                image_id = owner_of(connection, image_id)
            if image_id in found:
                found[image_id][1].append(location_row(row))
    return found


def owner_of(connection: sa.Connection, image_id: str) -> str | None:
    """Return the id of the image that a location refers to in different case.

    To a case-insensitive database, and so to Glance, both ids are the same.

    :returns: None if there is no such image.
    """
    query = sa.select(images.c.id).where(images.c.id == image_id)
    return connection.execute(query).scalar()


def image_row(row: Sequence[Any]) -> ImageRow:
    """Make an :class:`ImageRow` of a row.

    :param row: consists of :data:`IMAGE_COLUMNS`.
    :raises ValueError: a date is invalid, as MySQL's zero dates are.
    """
    image = ImageRow._make(row)
    _check_times(image.deleted_at, image.updated_at)
    return image


def location_row(row: Sequence[Any]) -> LocationRow:
    """Make a :class:`LocationRow` of a row, and check its values.

    :param row: begins with :data:`LOCATION_COLUMNS`.
    :raises ValueError: a date is invalid, as MySQL's zero dates are, or there is no URL.
    """
    location = unchecked_location_row(row)
    _check_times(location.deleted_at, location.updated_at)
    if not isinstance(location.value, str):
        raise ValueError("a location has no URL")  # noqa: TRY004 - like other bad values
    return location


def unchecked_location_row(row: Sequence[Any]) -> LocationRow:
    """Make a :class:`LocationRow` of a row without a look at its values.

    For rows that must not fail the images of others: a date or URL in it may be invalid.

    :param row: begins with :data:`LOCATION_COLUMNS`.
    """
    _, number, value, metadata, status, deleted, deleted_at, updated_at = row[:_LOCATION_WIDTH]
    return LocationRow(
        number, value, named_store(metadata), status, deleted, deleted_at, updated_at
    )


def _check_times(*times: object) -> None:
    for time in times:
        if time is not None and not isinstance(time, datetime):
            raise ValueError("a date is invalid")


#: Longest metadata in the cache, characters. Longer ones are decoded each time, because a member of
#: a project may fill the column.
_MOST_CACHED = 200


def named_store(metadata: str | None) -> str | None:
    """Return the store that a location's metadata names, or None.

    Glance writes the name under ``store``; old releases wrote it under ``backend``.

    :param metadata: JSON, as stored; invalid JSON names no store.
    """
    if metadata is not None and len(metadata) > _MOST_CACHED:
        return _decode_store(metadata)
    return _known_store(metadata)


def _decode_store(metadata: str | None) -> str | None:
    try:
        values = json.loads(metadata or "{}")
    except (ValueError, RecursionError):  # RecursionError: deeply nested
        return None
    if not isinstance(values, dict):
        return None
    store = values.get("store") or values.get("backend")
    return store if isinstance(store, str) else None


_known_store = functools.lru_cache(maxsize=1024)(_decode_store)
