# SPDX-License-Identifier: Apache-2.0
"""Parse Glance's ``image.delete`` notifications. Pure.

Anybody with access to the bus can publish one with any content, so a notification is only a hint:
three fields are used, each is validated, and the registry has the last word on all of them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EVENT_TYPE = "image.delete"
#: Key of a message that was parsed on arrival; its value is the event or the error.
READ = "evscrub.read"

_ID_LENGTH = 36  # of images.id in Glance's schema
_OWNER_LENGTH = 255  # of images.owner
_TIME_LENGTH = 40
#: How far ahead a deletion time may be; clocks do not differ by more.
_AHEAD = timedelta(days=1)
_EARLIEST = datetime(2010, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DeleteEvent:
    """Announce that an image was deleted.

    :param deleted_at: seconds since the epoch, by the clock of a Glance host, but not in the
        future, so that a forged event does not delay its image.
    """

    image_id: str
    owner: str | None
    deleted_at: float


class NotForUsError(Exception):
    """Raised for a well-formed notification that needs no action: another event or status."""


class MalformedError(Exception):
    """Raised for a message that Glance would not send; the text is one of a fixed set."""


def parse(event_type: object, payload: object, now: datetime) -> DeleteEvent:
    """Parse a notification.

    :param now: the current time, timezone-aware; bounds the event's deletion time.
    :raises NotForUsError: it needs no action.
    :raises MalformedError: Glance would not send it.
    """
    if event_type != EVENT_TYPE:
        raise NotForUsError("another event")
    if not isinstance(payload, dict):
        raise MalformedError("payload is no mapping")
    image_id = payload.get("id")
    if not (
        isinstance(image_id, str)
        and 0 < len(image_id) <= _ID_LENGTH
        and image_id.isascii()
        and image_id.isprintable()
    ):
        raise MalformedError("no image id")
    if payload.get("status") != "pending_delete":
        raise NotForUsError("not under delayed delete")
    owner = payload.get("owner")
    if owner is not None and not (isinstance(owner, str) and len(owner) <= _OWNER_LENGTH):
        raise MalformedError("no owner")
    return DeleteEvent(image_id, owner, _deleted_at(payload.get("deleted_at"), now))


def _deleted_at(value: object, now: datetime) -> float:
    if not isinstance(value, str) or len(value) > _TIME_LENGTH:
        raise MalformedError("no deleted_at")
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise MalformedError("no deleted_at") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        absurd = not _EARLIEST <= moment <= now + _AHEAD
    except OverflowError:
        absurd = True
    if absurd:
        raise MalformedError("absurd deleted_at")
    return min(moment, now).timestamp()
