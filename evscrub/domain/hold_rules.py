# SPDX-License-Identifier: Apache-2.0
"""Decide which images may be restored, held or released, and which rows belong to them. Pure.

A held image has no deletion time. In SQL no comparison with NULL is true, so neither evscrub, nor
glance-scrubber, nor ``glance-manage db purge`` selects it, and no further column is needed. The
rows that were deleted with it lose their deletion time too, because the purge looks at each table
separately.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from evscrub.domain.decisions import DELETED, PENDING_DELETE, ImageRow, LocationRow

#: Statuses of an image that is not deleted and has its data.
USABLE = ("active", "deactivated")

#: How long before the last one a DELETE may have marked the other locations. Glance marks them one
#: by one, each with its own clock reading, then asks Barbican to delete the image's key, which may
#: take any time, and then marks the image (glance.api.v2.images).
_LOCATIONS_BEFORE = timedelta(seconds=60)
#: How long before the image a DELETE may have marked its properties. It also marks the properties
#: that had been removed from the image before, and nothing in the rows distinguishes them.
PROPERTIES_BEFORE = timedelta(seconds=10)
#: How long after the image a row of the same DELETE may be marked. Tags and members have the same
#: time as the image, but MySQL rounds it to the nearest second.
AFTER = timedelta(seconds=2)

#: A release sets the time of the locations this much after the image's, as no DELETE does, to mark
#: an image that is due without a notification. Less than :data:`AFTER`, so that rows still match.
RELEASED_AFTER = timedelta(seconds=1)


class RefusedError(Exception):
    """The operation is not possible for this image; the message says why."""


class UnchangedError(RefusedError):
    """The image is already as the operation would leave it; the message says how it is."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """The rows that one DELETE marked.

    :param locations: the locations that can be restored.
    :param at: deletion time of the image; None selects rows without one, as a hold leaves them.
    :param status: status of the image after a restore.
    """

    locations: tuple[LocationRow, ...]
    at: datetime | None
    status: str = "active"


def to_restore(image: ImageRow | None, locations: Sequence[LocationRow]) -> Deletion:
    """Return the rows to restore with an image.

    :param image: None if the registry has no such image.
    :param locations: all of its locations.
    :raises UnchangedError: the image is not deleted.
    :raises RefusedError: it must not be restored, or nothing is left to restore.
    """
    if image is None:
        raise RefusedError("it is not in the registry")
    if image.status == DELETED:
        if not image.deleted:
            raise RefusedError("its DELETE did not complete: delete it again")
        if any(row.status == PENDING_DELETE for row in locations):
            raise RefusedError("it is being scrubbed")
        raise RefusedError("it is already scrubbed")
    if image.status not in {PENDING_DELETE, *USABLE}:
        raise RefusedError(f"it is not pending delete but {image.status}")
    if image.status != PENDING_DELETE and any(not row.deleted for row in locations):
        raise UnchangedError(f"it is not deleted, it is {image.status}")
    deletion = _deletion(image, locations)
    if not deletion.locations:
        raise RefusedError("it has no location left whose data could come back")
    if image.status != PENDING_DELETE:
        # A live image without live locations: only its locations are restored, not its status.
        return replace(deletion, status=image.status)
    return deletion


def to_hold(image: ImageRow | None, locations: Sequence[LocationRow]) -> Deletion:
    """Return the rows to hold with an image.

    :raises UnchangedError: the image is held already.
    :raises RefusedError: the image is not waiting to be scrubbed.
    """
    deletion = _pending(image, locations)
    if deletion.at is None:
        raise UnchangedError("it is held already")
    return deletion


def to_release(image: ImageRow | None, locations: Sequence[LocationRow]) -> Deletion:
    """Return the rows to release with a held image.

    :raises UnchangedError: the image is pending and not held.
    :raises RefusedError: the image is not pending.
    """
    deletion = _pending(image, locations)
    if deletion.at is not None:
        raise UnchangedError("it is not held")
    return deletion


def was_released(image: ImageRow, locations: Collection[LocationRow]) -> bool:
    """Return whether a pending image was held and released after its DELETE."""
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
    """Return the deletion time of a pending image, or of the locations removed from a live one.

    :returns: the image's deletion time, else the latest of its locations; None if a location that
        awaits scrubbing has none, as after a hold.
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
    # An image is pending only if it had a live location, so the last one to be marked is of its
    # DELETE. One that is scrubbed by now is marked with that later time.
    marked = [row.deleted_at for row in locations if row.deleted_at is not None]
    last = min(max(marked, default=at), at)
    with_it = tuple(
        row
        for row in pending
        if row.deleted_at is not None and last - _LOCATIONS_BEFORE <= row.deleted_at <= at + AFTER
    )
    return Deletion(with_it, at)


def warnings(properties: Collection[tuple[str, str | None]]) -> list[str]:
    """Return what a restore cannot bring back, as clauses about the image.

    :param properties: names and values of the image's properties.
    """
    values = dict(properties)
    key = values.get("cinder_encryption_key_id")
    if key and values.get("cinder_encryption_key_deletion_policy") == "on_image_deletion":
        return [f"its encryption key {key} was destroyed in Barbican when it was deleted"]
    return []
