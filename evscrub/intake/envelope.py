# SPDX-License-Identifier: Apache-2.0
"""Decode a message's body into an event. Pure.

oslo.messaging writes JSON: the notification itself, or an envelope that holds it as JSON in a
string. Nothing else is decoded, one envelope deep.
"""

import json
from datetime import datetime

from evscrub.intake import MAX_BODY_BYTES
from evscrub.intake.notification import DeleteEvent, MalformedError, parse

_CONTENT_TYPE = "application/json"
_VERSION = "oslo.version"
_MESSAGE = "oslo.message"
_MAJOR = "2"


def read(body: bytes | str, content_type: str | None, now: datetime) -> DeleteEvent:
    """Decode a body that is not compressed any more.

    :param content_type: as the sender named it; it alone says how to decode the body.
    :param now: about the present, aware.
    :raises NotForUsError: it is of no concern.
    :raises MalformedError: it is larger than :data:`MAX_BODY_BYTES`, or not as oslo.messaging and
        Glance write it.
    """
    if len(body) > MAX_BODY_BYTES:
        raise MalformedError("too large")
    if content_type != _CONTENT_TYPE:
        raise MalformedError("not JSON")
    message = _mapping(body)
    if _VERSION in message and _MESSAGE in message:
        version, inner = message[_VERSION], message[_MESSAGE]
        if not isinstance(version, str) or version.partition(".")[0] != _MAJOR:
            raise MalformedError("unknown envelope")
        if not isinstance(inner, str):
            raise MalformedError("not JSON")
        message = _mapping(inner)
    return parse(message.get("event_type"), message.get("payload"), now)


def _mapping(text: bytes | str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError, MemoryError):
        raise MalformedError("not JSON") from None
    if not isinstance(value, dict):
        raise MalformedError("no mapping")
    return value
