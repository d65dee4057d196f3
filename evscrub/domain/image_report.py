# SPDX-License-Identifier: Apache-2.0
"""Describe an image that awaits scrubbing to an operator: its state, due time and reason. Pure."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from evscrub.domain import hold_rules
from evscrub.domain.decisions import (
    DELETED,
    HELD,
    PENDING_DELETE,
    UNFINISHED,
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
#: States of images that have nothing to scrub, which are not listed.
LIVE, SCRUBBED = "live", "scrubbed"
#: All states of images that are listed.
STATES = (WAITING, DUE, CLAIMED, IN_USE, PARKED, HOLD, DAMAGED)

#: A DELETE changes an image and its properties, tags and members within this time.
_WITH_THE_IMAGE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Listed:
    """An image as in the registry, read at the database's time `now`.

    :param children_deleted_at: for an image without a deletion time, the latest one of its deleted
        properties, tags and members; None if there is none or they were not read.
    """

    image: ImageRow
    name: str | None
    locations: tuple[LocationRow, ...]
    now: datetime
    children_deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReportedTrouble:
    """Why an agent could not scrub an image.

    :param state: ``parked``, ``in use`` or ``retrying``; the last is shown as the reason of
        ``due``.
    """

    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class AgentReports:
    """What agents reported.

    :param images: troubles by image id.
    :param stores: by name of the store, why little or nothing is deleted from it now.
    :param paused: names of those stores that an agent has paused until an operator acts.
    """

    images: Mapping[str, ReportedTrouble] = field(default_factory=dict)
    stores: Mapping[str, str] = field(default_factory=dict)
    paused: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ImageReport:
    """The state of one image, as shown to an operator.

    :param due_at: when it may be scrubbed; None if unknown or never.
    :param due_in: time until then, negative if it is past.
    :param reason: why it is in this state; empty if the state explains itself.
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
    seen: Listed, policy: Policy, reported: AgentReports, store_of: Callable[[LocationRow], str]
) -> ImageReport | None:
    """Return the report on an image; None if it has nothing to scrub.

    :param reported: what agents reported.
    :param store_of: returns the name of a location's store.
    """
    image, locations, now = seen.image, seen.locations, seen.now
    decision = decide(image, locations, now, policy)
    pending = [row for row in locations if row.status == PENDING_DELETE]
    stores = tuple(dict.fromkeys(map(store_of, pending)))
    trouble = reported.images.get(image.id)
    reason, due_at = "", None
    match decision:
        case Wait(seconds):
            state, reason = _waiting(image, pending, now, policy)
            if state == CLAIMED:  # it waits for the claim to expire; the image is due
                due_at = _due_since(image, pending, now, policy)
            else:
                due_at = _later(now, timedelta(seconds=seconds))
        case Scrub(kind):
            state, due_at = DUE, _due_since(image, pending, now, policy)
            reason = _OF_KIND[kind] if pending else "no location left, will only be finished"
            if trouble is not None:
                reason = trouble.reason
                state = trouble.state if trouble.state in {PARKED, IN_USE} else DUE
            if state == DUE:
                reasons = [
                    reason,
                    *(reported.stores[name] for name in stores if name in reported.stores),
                ]
                reason = "; ".join(filter(None, reasons))
        case Damaged(reason):
            state = DAMAGED
        case Leave(why) if why == HELD:
            state, reason = HOLD, "until it is released"
        case Leave(why) if why == UNFINISHED:
            state, reason = WAITING, "left by a failed import, until its image is active or deleted"
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


@dataclass(frozen=True, slots=True)
class Restorable:
    """What a restore of an image would do.

    :param refusal: why it would be refused, as a clause about the image; empty if it would not.
    :param status: the image's status after it.
    :param locations: the locations whose data would be in use again.
    :param properties: names and values of the properties that would come back.
    :param losses: what could not be restored, as clauses about the image.
    """

    refusal: str = ""
    status: str | None = None
    locations: tuple[LocationRow, ...] = ()
    properties: tuple[tuple[str, str | None], ...] = ()
    tags: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Detail:
    """All that an operator may ask about one image."""

    seen: Listed
    created_at: datetime | None
    restorable: Restorable


def describe_any(
    seen: Listed, policy: Policy, reported: AgentReports, store_of: Callable[[LocationRow], str]
) -> ImageReport:
    """Return the report on an image as :func:`describe`, also if it has nothing to scrub."""
    image = seen.image
    return describe(seen, policy, reported, store_of) or ImageReport(
        id=image.id,
        name=seen.name,
        owner=image.owner,
        size=image.size,
        stores=tuple(dict.fromkeys(map(store_of, seen.locations))),
        deleted_at=image.deleted_at,
        due_at=None,
        due_in=None,
        state=SCRUBBED if image.status == DELETED else LIVE,
        reason="nothing of it awaits scrubbing",
    )


def claim_expires_at(seen: Listed, policy: Policy) -> datetime | None:
    """Return when another agent may take over a claimed image; None without a claim."""
    pending = [row for row in seen.locations if row.status == PENDING_DELETE]
    stamps = [row.updated_at for row in pending if row.updated_at is not None]
    if seen.image.status != DELETED or not stamps:
        return None
    return _later(max(stamps), policy.claim_timeout)


_OF_KIND = {
    Kind.PENDING: "",
    Kind.EXPIRED: "its claim expired, will be taken over",
    Kind.HANDED_BACK: "a delete failed, will be retried",
    Kind.ORPHAN: "location removed from a live image",
}


def _waiting(
    image: ImageRow, pending: Collection[LocationRow], now: datetime, policy: Policy
) -> tuple[str, str]:
    if image.status == PENDING_DELETE:
        return WAITING, ""
    if image.status == DELETED:
        if image.deleted_at is not None and _later(image.deleted_at, policy.scrub_time) > now:
            return WAITING, "deleted again after glance-scrubber --restore"
        return CLAIMED, f"by an agent, {len(pending)} locations left"
    return WAITING, _OF_KIND[Kind.ORPHAN]


def _due_since(
    image: ImageRow, pending: Collection[LocationRow], now: datetime, policy: Policy
) -> datetime:
    """Return since when a due image has been due."""
    since = image.deleted_at or _removed_at(pending)
    if since is None:
        return now
    grace = timedelta(0) if image.status in {PENDING_DELETE, DELETED} else policy.orphan_grace
    return min(now, _later(since, policy.scrub_time + grace))


def _later(moment: datetime, span: timedelta) -> datetime:
    """Return a moment and a span after it, or the last moment that a date can have."""
    try:
        return moment + span
    except OverflowError:
        return datetime.max  # noqa: DTZ901 - naive, as all times of the registry


def _removed_at(pending: Collection[LocationRow]) -> datetime | None:
    return max((row.deleted_at for row in pending if row.deleted_at is not None), default=None)


def _time_of_held(seen: Listed) -> datetime | None:
    """Return when a held image was deleted; None if no row tells, as after ``evscrub hold``."""
    at, of_child = hold_rules.deletion_time(seen.image, seen.locations), seen.children_deleted_at
    if at is not None or of_child is None or seen.image.updated_at is None:
        return at
    # A tag or member removed long before keeps its time through a hold.
    return of_child if abs(seen.image.updated_at - of_child) <= _WITH_THE_IMAGE else None
