# SPDX-License-Identifier: Apache-2.0
"""What an operator is told of an image that awaits scrubbing. Pure."""

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

#: A DELETE changes an image and what belongs to it within so long.
_WITH_THE_IMAGE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Listed:
    """An image as the registry has it, read at the database's time `now`.

    :param children_deleted_at: the latest time of the deleted properties, tags and members of an
        image without a time of its own; None also where they were not looked at.
    """

    image: ImageRow
    name: str | None
    locations: tuple[LocationRow, ...]
    now: datetime
    children_deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReportedTrouble:
    """What an agent knows of an image.

    :param state: ``parked``, ``in use``, or ``retrying``, which is no state here but a reason.
    """

    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class AgentReports:
    """What agents told.

    :param images: by image id.
    :param stores: why nothing, or little, is deleted from a store now, by its name.
    """

    images: Mapping[str, ReportedTrouble] = field(default_factory=dict)
    stores: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageReport:
    """One image.

    :param due_at: when it may be scrubbed; None where that is not said.
    :param due_in: how long until then, negative when it is past.
    :param reason: why it is in this state; empty where the state says it all.
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


def describe(
    seen: Listed, policy: Policy, told: AgentReports, store_of: Callable[[LocationRow], str]
) -> ImageReport | None:
    """Say how an image stands; None if there is nothing to scrub of it.

    :param store_of: names a location's store.
    """
    image, locations, now = seen.image, seen.locations, seen.now
    decision = decide(image, locations, now, policy)
    pending = [row for row in locations if row.status == PENDING_DELETE]
    stores = tuple(dict.fromkeys(map(store_of, pending)))
    trouble = told.images.get(image.id)
    reason, due_at = "", None
    match decision:
        case Wait(seconds):
            state, reason = _waiting(image, pending)
            if state == CLAIMED:  # what is left to wait for is the claim, not the image
                due_at = _due_since(image, pending, now, policy)
            else:
                due_at = now + timedelta(seconds=seconds)
        case Scrub(kind):
            state, due_at = DUE, _due_since(image, pending, now, policy)
            reason = _OF_KIND[kind] if pending else "no location is left: only to be finished"
            if trouble is not None:
                reason = trouble.reason
                state = trouble.state if trouble.state in {PARKED, IN_USE} else DUE
            if state == DUE:
                reasons = [reason, *(told.stores[name] for name in stores if name in told.stores)]
                reason = "; ".join(filter(None, reasons))
        case Damaged(reason):
            state = DAMAGED
        case Leave(why) if why == HELD:
            state, reason = HOLD, "until it is released"
        case Leave():
            return None
    return ImageReport(
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
    Kind.STALE: "its claim ran out: to be taken over",
    Kind.GIVEN_BACK: "a delete of it failed: to be tried again",
    Kind.ORPHAN: "location taken off a live image",
}


def _waiting(image: ImageRow, pending: Collection[LocationRow]) -> tuple[str, str]:
    if image.status == PENDING_DELETE:
        return WAITING, ""
    if image.status == DELETED:
        # A DELETE after glance-scrubber --restore looks the same until its time is over.
        return CLAIMED, f"by an agent, {len(pending)} of its locations left"
    return WAITING, _OF_KIND[Kind.ORPHAN]


def _due_since(
    image: ImageRow, pending: Collection[LocationRow], now: datetime, policy: Policy
) -> datetime:
    """When an image that is due became so."""
    since = image.deleted_at or _removed_at(pending)
    if since is None:
        return now
    grace = timedelta(0) if image.status in {PENDING_DELETE, DELETED} else policy.orphan_grace
    return min(now, since + policy.scrub_time + grace)


def _removed_at(pending: Collection[LocationRow]) -> datetime | None:
    return max((row.deleted_at for row in pending if row.deleted_at is not None), default=None)


def _time_of_held(seen: Listed) -> datetime | None:
    """When a held image was deleted; None if no row tells any more, as after ``evscrub hold``."""
    at, of_child = hold_rules.deletion_time(seen.image, seen.locations), seen.children_deleted_at
    if at is not None or of_child is None or seen.image.updated_at is None:
        return at
    # A tag or member that was removed long before keeps its time through a hold.
    return of_child if abs(seen.image.updated_at - of_child) <= _WITH_THE_IMAGE else None
