# SPDX-License-Identifier: Apache-2.0
"""Describe the state of an image that awaits scrubbing to an operator. Pure."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from evscrub.domain import hold_rules
from evscrub.domain.decisions import (
    DELETED,
    HELD,
    PENDING_DELETE,
    Damaged,
    ImageRow,
    Kind,
    Leave,
    LocationRow,
    Policy,
    Scrub,
    Wait,
    decide,
)

WAITING, DUE, CLAIMED, HOLD = "waiting", "due", "claimed", "held"
DAMAGED, PARKED, IN_USE = "damaged", "parked", "in use"

#: Longest time between the first and the last row that a DELETE changes.
_WITH_THE_IMAGE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Listed:
    """An image as the registry has it.

    :param now: the database's time of the read, naive UTC.
    :param children_deleted_at: for a held image the latest deletion time of its properties, tags
        and members; None if there is none or they were not read.
    """

    image: ImageRow
    name: str | None
    locations: tuple[LocationRow, ...]
    now: datetime
    children_deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ImageReport:
    """What an agent reports about an image that it could not scrub.

    :param state: ``parked``, ``in use`` or ``retrying``; the last is shown only as a reason.
    """

    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class AgentReports:
    """What the agents report.

    :param images: images that could not be scrubbed, by id.
    :param stores: why a store is paused or slowed down, by its name.
    """

    images: Mapping[str, ImageReport] = field(default_factory=dict)
    stores: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the listing.

    :param size: bytes.
    :param due_at: when the image may be scrubbed, naive UTC; None if that is not known.
    :param due_in: time until then; negative if it has passed.
    :param reason: why the image is in its state; may be empty.
    """

    id: str
    name: str | None
    owner: str | None
    size: int | None
    stores: tuple[str, ...]
    deleted_at: datetime | None
    due_at: datetime | None
    due_in: timedelta | None
    state: str
    reason: str


def line(
    seen: Listed, policy: Policy, reports: AgentReports, store_of: Callable[[LocationRow], str]
) -> Line | None:
    """Return the line of an image, or None if it has nothing to scrub.

    :param store_of: returns the name of a location's store.
    """
    image, locations, now = seen.image, seen.locations, seen.now
    decision = decide(image, locations, now, policy)
    pending = [row for row in locations if row.status == PENDING_DELETE]
    stores = tuple(dict.fromkeys(map(store_of, pending)))
    report = reports.images.get(image.id)
    reason, due_at = "", None
    match decision:
        case Wait(seconds):
            state, reason = _waiting(image, pending)
            if state == CLAIMED:  # the wait is for the lease to expire; the image is due already
                due_at = _due_since(image, pending, now, policy)
            else:
                due_at = now + timedelta(seconds=seconds)
        case Scrub(kind):
            state, due_at = DUE, _due_since(image, pending, now, policy)
            reason = _OF_KIND[kind] if pending else "no location is left; only its row is pending"
            if report is not None:
                reason = report.reason
                state = report.state if report.state in {PARKED, IN_USE} else DUE
            if state == DUE:
                reasons = [
                    reason,
                    *(reports.stores[name] for name in stores if name in reports.stores),
                ]
                reason = "; ".join(filter(None, reasons))
        case Damaged(reason):
            state = DAMAGED
        case Leave(why) if why == HELD:
            state, reason = HOLD, "until it is released"
        case Leave():
            return None
    return Line(
        id=image.id,
        name=seen.name,
        owner=image.owner,
        size=image.size,
        stores=stores,
        deleted_at=(
            _time_of_held(seen) if state == HOLD else image.deleted_at or _removed_at(pending)
        ),
        due_at=due_at,
        due_in=None if due_at is None else due_at - now,
        state=state,
        reason=reason,
    )


_OF_KIND = {
    Kind.PENDING: "",
    Kind.EXPIRED: "its claim expired; another agent will take it over",
    Kind.HANDED_BACK: "a delete failed and will be retried",
    Kind.ORPHAN: "location removed from a live image",
}


def _waiting(image: ImageRow, pending: Collection[LocationRow]) -> tuple[str, str]:
    if image.status == PENDING_DELETE:
        return WAITING, ""
    if image.status == DELETED:
        # A DELETE after glance-scrubber --restore looks the same until scrub_time is over.
        return CLAIMED, f"by an agent, {len(pending)} of its locations left"
    return WAITING, _OF_KIND[Kind.ORPHAN]


def _due_since(
    image: ImageRow, pending: Collection[LocationRow], now: datetime, policy: Policy
) -> datetime:
    """Return when an image became due."""
    since = image.deleted_at or _removed_at(pending)
    if since is None:
        return now
    grace = timedelta(0) if image.status in {PENDING_DELETE, DELETED} else policy.orphan_grace
    return min(now, since + policy.scrub_time + grace)


def _removed_at(pending: Collection[LocationRow]) -> datetime | None:
    return max((row.deleted_at for row in pending if row.deleted_at is not None), default=None)


def _time_of_held(seen: Listed) -> datetime | None:
    """Return when a held image was deleted, or None if no row has the time any more."""
    at, of_child = hold_rules.deletion_time(seen.image, seen.locations), seen.children_deleted_at
    if at is not None or of_child is None or seen.image.updated_at is None:
        return at
    # A tag or member that was removed long before the DELETE keeps its time during a hold.
    return of_child if abs(seen.image.updated_at - of_child) <= _WITH_THE_IMAGE else None
