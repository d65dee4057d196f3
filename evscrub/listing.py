# SPDX-License-Identifier: Apache-2.0
"""What an operator is told of an image that awaits scrubbing. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from evscrub import location_crypt
from evscrub.rules import (
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

#: What is shown of a store that no row names and no URL tells.
_UNKNOWN_STORE = "?"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What an agent knows of an image.

    :param state: ``parked``, ``in use``, or ``retrying``, which is no state here but a reason.
    """

    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Line:
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


def line(
    image: ImageRow,
    name: str | None,
    locations: Collection[LocationRow],
    now: datetime,
    policy: Policy,
    troubles: Mapping[str, Trouble],
) -> Line | None:
    """Say how an image stands; None if there is nothing to scrub of it.

    :param now: the database's clock, naive UTC.
    :param troubles: what agents know, by image id.
    """
    decision = decide(image, tuple(locations), now, policy)
    pending = [row for row in locations if row.status == PENDING_DELETE]
    trouble = troubles.get(image.id)
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
            reason = _OF_KIND[kind]
            if trouble is not None:
                reason = trouble.reason
                state = trouble.state if trouble.state in {PARKED, IN_USE} else DUE
        case Damaged(reason):
            state = DAMAGED
        case Leave(why) if why == HELD:
            state, reason = HOLD, "until it is released"
        case Leave():
            return None
    return Line(
        id=image.id,
        name=name,
        owner=image.owner,
        size=image.size,
        stores=_stores(pending),
        deleted_at=image.deleted_at or _removed_at(pending) if state != HOLD else None,
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


def _stores(pending: Collection[LocationRow]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.store or _scheme(row.value) for row in pending))


def _scheme(value: str) -> str:
    """The kind of store, where the row does not name one; of the URL nothing else is shown."""
    return value.partition(":")[0] if location_crypt.is_url(value) else _UNKNOWN_STORE
