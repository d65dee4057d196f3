# SPDX-License-Identifier: Apache-2.0
"""Decide what may be scrubbed, and when. Pure.

Given the rows of an image, :func:`decide` returns a :class:`Scrub`, :class:`Wait`, :class:`Leave`
or :class:`Damaged`. No other code decides that data may be deleted, so the rule that live data is
never deleted can be read and tested here.

Times are naive UTC, as Glance stores them. The current time is the database's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import NamedTuple

PENDING_DELETE = "pending_delete"
ACTIVE = "active"
DELETED = "deleted"
#: Statuses of an image that has never been active. A failed import into several stores leaves the
#: locations of those that had succeeded pending, and the image queued or importing.
UNFINISHED_STATUSES = frozenset({"queued", "saving", "uploading", "importing", "killed"})


class LocationRow(NamedTuple):
    """A row of ``image_locations``.

    :param value: the URL as stored. It may contain credentials or be encrypted, so it is never
        logged or shown.
    :param store: the store that the row's metadata names, if any.
    :param updated_at: while the location is claimed, the lease of the claim.
    """

    id: int
    value: str
    store: str | None
    status: str
    deleted: bool
    deleted_at: datetime | None
    updated_at: datetime | None

    def __repr__(self) -> str:
        return f"<location {self.id} in {self.store}: {self.status}>"


class ImageRow(NamedTuple):
    """A row of ``images``.

    :param size: size of the image's data in bytes.
    """

    id: str
    owner: str | None
    size: int | None
    status: str
    deleted: bool
    deleted_at: datetime | None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """The configured times by which to decide.

    :param scrub_time: how long the data of a deleted image is kept.
    :param claim_timeout: age at which a lease expires and another agent takes the claim over.
    :param orphan_grace: how much longer than `scrub_time` an orphan is kept, to let Glance finish
        the request that removed it.
    :param orphans: whether orphans are scrubbed.
    """

    scrub_time: timedelta
    claim_timeout: timedelta
    orphan_grace: timedelta = timedelta(minutes=10)
    orphans: bool = True


class Kind(Enum):
    """Why an image's locations may be scrubbed."""

    PENDING = "pending"  #: a pending image whose scrub_time is over
    EXPIRED = "expired"  #: a deleted image whose claim expired, because its agent died
    #: A deleted image whose claim was handed back after a delete that may have taken effect. It is
    #: not pending again, because a pending image may be restored.
    HANDED_BACK = "handed back"
    ORPHAN = "orphan"  #: a live image from which locations were removed


@dataclass(frozen=True, slots=True)
class Scrub:
    """Claim the image and delete the data of these locations.

    :param locations: may be empty: then only the image's row is left to be marked as deleted.
    """

    kind: Kind
    locations: tuple[LocationRow, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """There is nothing to scrub yet.

    :param seconds: the time to wait, more than 0.
    :param locations: what is to be scrubbed then, if the rows stay as they are. Empty if they are
        about to change, as while another agent has a claim, and as in :class:`Scrub`.
    """

    seconds: float
    locations: tuple[LocationRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Leave:
    """There is nothing to scrub.

    :param reason: one of a fixed set below.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """The rows contradict each other: only an operator can repair the image.

    :param reason: what is wrong, as a clause.
    """

    reason: str


Decision = Scrub | Wait | Leave | Damaged

#: Reasons of :class:`Leave`; a fixed set, because they are values of a metric's label.
ALIVE = "alive"
UNFINISHED = "not active yet"
SCRUBBED = "already scrubbed"
CLAIMED = "claimed by another agent"
HELD = "held"
UNKNOWN = "not in the registry"


def decide(
    image: ImageRow, locations: Sequence[LocationRow], now: datetime, policy: Policy
) -> Decision:
    """Decide what to do with an image.

    :param locations: all rows of the image's locations, including deleted ones.
    :param now: the database's time, naive UTC.
    """
    pending = tuple(row for row in locations if row.status == PENDING_DELETE and row.deleted)
    live = [row for row in locations if not row.deleted]
    if image.status == PENDING_DELETE:
        return _decide_pending(image, pending, now, policy, has_live=bool(live))
    if image.status == DELETED:
        return _decide_deleted(image, pending, now, policy, has_live=bool(live))
    return _decide_live(image, pending, now, policy, has_live=bool(live))


def _decide_pending(
    image: ImageRow,
    pending: tuple[LocationRow, ...],
    now: datetime,
    policy: Policy,
    *,
    has_live: bool,
) -> Decision:
    if not image.deleted:
        return Damaged("DELETE did not complete: the image is pending_delete but not deleted")
    if image.deleted_at is None:
        return Leave(HELD)
    if has_live:
        return Damaged("the image is pending_delete but has a live location")
    # Summed in this order no date overflows.
    left = image.deleted_at - now + policy.scrub_time
    return _scrub_after(left, Kind.PENDING, pending)


def _decide_deleted(
    image: ImageRow,
    pending: tuple[LocationRow, ...],
    now: datetime,
    policy: Policy,
    *,
    has_live: bool,
) -> Decision:
    if not pending:
        return Leave(SCRUBBED)
    if not image.deleted:
        # Glance sets the status first: at a second DELETE after one that it did not complete, and
        # of an image without locations for Glance. A claim always has both.
        return Damaged("DELETE did not complete: the image has status deleted but is not deleted")
    if has_live:
        return Damaged("the image is deleted but has a live location")
    left = _lease_left(pending, now, policy)
    if image.deleted_at is not None:
        # May be in the future: after glance-scrubber --restore the image has no locations for
        # Glance, so a second DELETE sets its status to deleted, not pending_delete.
        left = max(left, image.deleted_at - now + policy.scrub_time)
    if left > timedelta(0):
        return Wait(left.total_seconds())
    kind = Kind.HANDED_BACK if _is_handed_back(image, pending, policy) else Kind.EXPIRED
    return Scrub(kind, pending)


def _is_handed_back(image: ImageRow, pending: tuple[LocationRow, ...], policy: Policy) -> bool:
    """Return whether the claim was handed back rather than expired.

    A claim stamps the image and its locations with the same lease; handing it back backdates only
    the leases of the locations.
    """
    stamps = [row.updated_at for row in pending if row.updated_at is not None]
    if image.updated_at is None or not stamps:
        return False
    return image.updated_at - max(stamps) > policy.claim_timeout / 2


def _decide_live(
    image: ImageRow,
    pending: tuple[LocationRow, ...],
    now: datetime,
    policy: Policy,
    *,
    has_live: bool,
) -> Decision:
    if not pending:
        return Leave(ALIVE)
    if not has_live and not image.deleted and image.status in UNFINISHED_STATUSES:
        # A next upload may write the same objects, and no row tells of it until it ends. The
        # locations are scrubbed once the image is active or deleted.
        return Leave(UNFINISHED)
    if not has_live:
        # After glance-scrubber --restore, or a DELETE that was interrupted before it marked the
        # image.
        return Damaged(f"the image is {image.status} but has no live location left")
    if image.deleted:
        return Damaged(f"the image is {image.status} but marked as deleted")
    if not policy.orphans:
        return Leave(ALIVE)
    removed = tuple(row for row in pending if row.deleted_at is not None)
    if not removed:
        return Leave(ALIVE)
    removed_last = max(row.deleted_at for row in removed if row.deleted_at is not None)
    left = removed_last - now + policy.scrub_time + policy.orphan_grace
    lease_left = _lease_left(removed, now, policy)
    if lease_left > timedelta(0):
        return Wait(max(left, lease_left).total_seconds())
    return _scrub_after(left, Kind.ORPHAN, removed)


def _scrub_after(left: timedelta, kind: Kind, locations: tuple[LocationRow, ...]) -> Decision:
    if left > timedelta(0):
        return Wait(left.total_seconds(), locations)
    return Scrub(kind, locations)


def _lease_left(pending: tuple[LocationRow, ...], now: datetime, policy: Policy) -> timedelta:
    """Return the time until the newest lease expires; rows without a stamp have no lease."""
    stamps = [row.updated_at for row in pending if row.updated_at is not None]
    return max(stamps) - now + policy.claim_timeout if stamps else timedelta(0)
