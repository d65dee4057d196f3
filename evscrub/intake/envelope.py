# SPDX-License-Identifier: Apache-2.0
"""Decode a message's body into an event. Pure.

oslo.messaging writes JSON: either the notification itself, or an envelope with the notification as
a JSON string. Nothing else is decoded, and only one level of envelope.
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
    """Decode a decompressed body.

    :param content_type: the content type given by the sender; only JSON is accepted.
    :param now: the current time, timezone-aware; bounds the event's deletion time.
    :raises NotForUsError: the notification needs no action.
    :raises MalformedError: the body is larger than :data:`MAX_BODY_BYTES`, or not what
        oslo.messaging and Glance write.
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
