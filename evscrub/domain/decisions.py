# SPDX-License-Identifier: Apache-2.0
"""What may be scrubbed, and when: the one place that decides.

Pure. Given what the registry says of an image now, :func:`decide` answers with one of
:class:`Scrub`, :class:`Wait`, :class:`Leave` or :class:`Damaged`. Everything else in evscrub only
carries out such an answer, so "never delete data that lives" can be read and tested here.

Times are naive UTC, as Glance stores them; "now" is the database's own clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import NamedTuple

PENDING_DELETE = "pending_delete"
ACTIVE = "active"
DELETED = "deleted"


class LocationRow(NamedTuple):
    """A row of ``image_locations``.

    `value` is the URL as stored: it may hold credentials or be encrypted, so it is never shown.
    `store` is the store that the row's metadata names, if any. `updated_at` is, while the location
    is claimed, the claim's lease.
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
    """A row of ``images``."""

    id: str
    owner: str | None
    size: int | None
    status: str
    deleted: bool
    deleted_at: datetime | None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's times.

    :param scrub_time: how long a deleted image's data is kept.
    :param claim_timeout: how old a lease must be before another agent takes the claim over.
    :param orphan_grace: how much longer than `scrub_time` a location removed from a live image
        stays, for Glance to be done with whatever removed it.
    :param orphans: whether such locations are scrubbed at all.
    """

    scrub_time: timedelta
    claim_timeout: timedelta
    orphan_grace: timedelta = timedelta(minutes=10)
    orphans: bool = True


class Kind(Enum):
    """Why an image's locations may be scrubbed."""

    PENDING = "pending"  #: a deleted image whose delay is over
    STALE = "stale"  #: a deleted image whose claim was left by an agent that died
    #: A deleted image that an agent failed to delete, and gave back with its data in doubt: it is
    #: not pending again, since what is pending may be restored.
    GIVEN_BACK = "given back"
    ORPHAN = "orphan"  #: locations that were taken off a live image


@dataclass(frozen=True, slots=True)
class Scrub:
    """Claim the image and delete these locations; none at all means only to finish it."""

    kind: Kind
    locations: tuple[LocationRow, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: look again in this many seconds, above 0."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing to scrub here, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """Something that only a person can judge; never touched."""

    reason: str


Decision = Scrub | Wait | Leave | Damaged

#: Reasons of :class:`Leave`; a fixed set, since they label a metric.
ALIVE = "alive"
SCRUBBED = "already scrubbed"
CLAIMED = "claimed by another agent"
HELD = "held"
UNKNOWN = "not in the registry"


def decide(
    image: ImageRow, locations: Sequence[LocationRow], now: datetime, policy: Policy
) -> Decision:
    """Say what to do about an image.

    :param locations: all rows of the image's locations, deleted ones included.
    :param now: the database's clock, naive UTC.
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
    # In this order no date overflows.
    left = image.deleted_at - now + policy.scrub_time
    if left > timedelta(0):
        return Wait(left.total_seconds())
    return Scrub(Kind.PENDING, pending)


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
    if has_live:
        return Damaged("the image is deleted but has a live location")
    left = _lease_left(pending, now, policy)
    if image.deleted_at is not None:
        # Not always past: glance-scrubber --restore and a second DELETE end here too, for Glance
        # sees no location then and has no pending_delete to go through.
        left = max(left, image.deleted_at - now + policy.scrub_time)
    if left > timedelta(0):
        return Wait(left.total_seconds())
    return Scrub(Kind.GIVEN_BACK if _is_given_back(image, pending, policy) else Kind.STALE, pending)


def _is_given_back(image: ImageRow, pending: tuple[LocationRow, ...], policy: Policy) -> bool:
    """Whether its agent let go of a claim; one that ran out has its lease in the image's row too.

    Whoever gives a claim back makes its lease older by the time-out, and not the image's time.
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
    if not has_live:
        # Restored by glance-scrubber, or a DELETE that broke off before it marked the image.
        return Damaged(f"the image is {image.status} but has no live location left")
    if image.deleted:
        return Damaged(f"the image is {image.status} but marked as deleted")
    if not policy.orphans:
        return Leave(ALIVE)
    removed = tuple(row for row in pending if row.deleted_at is not None)
    if not removed:
        return Leave(ALIVE)
    left = _lease_left(removed, now, policy)
    removed_last = max(row.deleted_at for row in removed if row.deleted_at is not None)
    left = max(left, removed_last - now + policy.scrub_time + policy.orphan_grace)
    if left > timedelta(0):
        return Wait(left.total_seconds())
    return Scrub(Kind.ORPHAN, removed)


def _lease_left(pending: tuple[LocationRow, ...], now: datetime, policy: Policy) -> timedelta:
    """How long the youngest lease has left; a row that was never stamped has none."""
    stamps = [row.updated_at for row in pending if row.updated_at is not None]
    return max(stamps) - now + policy.claim_timeout if stamps else timedelta(0)
