# SPDX-License-Identifier: Apache-2.0
"""Which images may be restored, held or released, and what comes back with them. Pure.

A held image has no deletion time: no row in SQL is older than NULL, so neither evscrub, nor
glance-scrubber, nor ``glance-manage db purge`` takes it, and no column is needed to say so. The
rows that were deleted with it lose their time too, for the purge looks at each table by itself.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from evscrub.domain.decisions import DELETED, PENDING_DELETE, ImageRow, LocationRow

#: Glance marks locations before the image, one after another, each with its own clock reading.
_LOCATIONS_BEFORE = timedelta(seconds=60)
#: Properties go a moment before the image, and in the same DELETE those that were removed from it
#: before are marked anew: Glance leaves nothing that tells them apart.
PROPERTIES_BEFORE = timedelta(seconds=10)
#: Tags and members carry the very time of the image; MySQL rounds that to the nearest second.
AFTER = timedelta(seconds=2)


#: A release sets the locations' time so much after their image's, which no DELETE does: the image
#: is due again without a notification. Within :data:`AFTER`, so that they still belong together.
RELEASED_AFTER = timedelta(seconds=1)


class RefusedError(Exception):
    """The operator asked for something that cannot be done to this image; the message says why."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What went in one DELETE: the image, some of its locations, and what carries such a time.

    :param locations: those that can come back.
    :param at: when; None stands for rows without a time, as a hold leaves them.
    :param status: the image's, once it is back.
    """

    locations: tuple[LocationRow, ...]
    at: datetime | None
    status: str = "active"


def to_restore(image: ImageRow | None, locations: Sequence[LocationRow]) -> Deletion:
    """Say what comes back when an image is restored.

    :raises RefusedError: it may not be restored, or nothing is left to restore.
    """
    if image is None:
        raise RefusedError("it is not in the registry")
    if image.status == DELETED:
        if any(row.status == PENDING_DELETE for row in locations):
            raise RefusedError("it is being scrubbed")
        raise RefusedError("it is already scrubbed")
    live = any(not row.deleted for row in locations)
    if image.status != PENDING_DELETE and (live or image.status not in {"active", "deactivated"}):
        raise RefusedError(f"it is not pending delete but {image.status}")
    deletion = _deletion(image, locations)
    if not deletion.locations:
        raise RefusedError("it has no location left whose data could come back")
    if image.status != PENDING_DELETE:
        # It lives, and only its locations are to come back: a deactivated one stays so.
        return replace(deletion, status=image.status)
    return deletion


def to_hold(image: ImageRow | None, locations: Sequence[LocationRow]) -> Deletion:
    """Say what a hold keeps.

    :raises RefusedError: the image is not waiting to be scrubbed.
    """
    deletion = _pending(image, locations)
    if deletion.at is None:
        raise RefusedError("it is held already")
    return deletion


def to_release(image: ImageRow | None, locations: Sequence[LocationRow]) -> Deletion:
    """Say what a release lets go of.

    :raises RefusedError: the image is not held.
    """
    deletion = _pending(image, locations)
    if deletion.at is not None:
        raise RefusedError("it is not held")
    return deletion


def was_released(image: ImageRow, locations: Collection[LocationRow]) -> bool:
    """Return whether a pending image was held and released since its DELETE."""
    at = image.deleted_at
    return at is not None and any(
        row.deleted_at is not None and row.deleted_at > at for row in locations
    )


def _pending(image: ImageRow | None, locations: Sequence[LocationRow]) -> Deletion:
    if image is not None and image.status not in {PENDING_DELETE, DELETED}:
        raise RefusedError(f"it is not pending delete but {image.status}")
    deletion = to_restore(image, locations)
    if image is not None and not image.deleted:
        raise RefusedError("its DELETE did not complete: delete it again, or restore it")
    return deletion


def deletion_time(image: ImageRow, locations: Collection[LocationRow]) -> datetime | None:
    """Return when a pending image, or the locations that were taken off one, were deleted.

    :returns: the image's own time, else its locations' latest; None where a location that awaits
        scrubbing has none, as a hold leaves them.
    """
    if image.deleted_at is not None:
        return image.deleted_at
    times = [row.deleted_at for row in _pending_locations(locations)]
    return None if None in times else max(filter(None, times), default=None)


def _pending_locations(locations: Collection[LocationRow]) -> list[LocationRow]:
    return [row for row in locations if row.status == PENDING_DELETE and row.deleted]


def _deletion(image: ImageRow, locations: Sequence[LocationRow]) -> Deletion:
    pending = _pending_locations(locations)
    at = deletion_time(image, locations)
    if at is None:
        return Deletion(tuple(row for row in pending if row.deleted_at is None), None)
    with_it = tuple(
        row
        for row in pending
        if row.deleted_at is not None and at - _LOCATIONS_BEFORE <= row.deleted_at <= at + AFTER
    )
    return Deletion(with_it, at)


def warnings(properties: Collection[tuple[str, str | None]]) -> list[str]:
    """Say what a restore cannot bring back, by the image's properties."""
    values = dict(properties)
    key = values.get("cinder_encryption_key_id")
    if key and values.get("cinder_encryption_key_deletion_policy") == "on_image_deletion":
        return [f"its encryption key {key} was destroyed in Barbican when it was deleted"]
    return []
