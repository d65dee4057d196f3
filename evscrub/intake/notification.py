# SPDX-License-Identifier: Apache-2.0
"""Reads Glance's ``image.delete`` notifications. Pure.

Whoever can publish on the bus can write anything into one, so it is only a hint: three fields are
used, each checked, and the registry has the last word on all of them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EVENT_TYPE = "image.delete"
#: The key of a message that was read as it arrived; its value is the event, or the error.
READ = "evscrub.read"

_ID_LENGTH = 36  # of images.id in Glance's schema
_OWNER_LENGTH = 255  # of images.owner
_TIME_LENGTH = 40
#: A time further ahead than clocks differ is no time of a deletion.
_AHEAD = timedelta(days=1)
_EARLIEST = datetime(2010, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DeleteEvent:
    """An image was deleted.

    :param deleted_at: seconds since the epoch, by the clock of a Glance host, whole seconds.
    """

    image_id: str
    owner: str | None
    deleted_at: float


class NotForUsError(Exception):
    """A well-formed notification that asks for nothing: another event, or another status."""


class MalformedError(Exception):
    """Something that Glance would not send. The message is one of a fixed set."""


def parse(event_type: object, payload: object, now: datetime) -> DeleteEvent:
    """Read a notification.

    :param now: about the present, aware.
    :raises NotForUsError: it is of no concern.
    :raises MalformedError: it is not as Glance writes it.
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
    return moment.timestamp()
