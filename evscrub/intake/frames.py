# SPDX-License-Identifier: Apache-2.0
"""Keep harmful AMQP frames away from the client library.

py-amqp decodes a message's properties while it reads the header frame, and collects the whole body
in memory. Properties that it cannot decode (tables nested a thousand deep, a time in the year 292
billion, text that is not UTF-8) raise in its read loop and leave the message unacknowledged. The
consumer then receives nothing more, nor does the next consumer that the broker gives the message
to. RabbitMQ forwards such messages. Since a message is acknowledged by its delivery tag, replacing
its header with one that can be decoded is enough.
"""

from collections.abc import Callable
from struct import pack, unpack_from

from amqp import spec
from amqp.exceptions import UnexpectedFrame

#: A frame: its type, its channel, its payload.
Frame = tuple[int, int, bytes]
OnFrame = Callable[[Frame], bool]

#: Content types of the headers that replace those of withheld messages.
TOO_LARGE = "application/x-evscrub-too-large"
UNREADABLE = "application/x-evscrub-unreadable"
EMPTY = "application/x-evscrub-empty"

_METHOD, _HEADER, _BODY = 1, 2, 3
_HEADER_START = ">HxxQ"  # of AMQP 0-9-1: class, weight, body size
_CONTENT_TYPE_FLAG = 1 << 15


class FrameGuard:
    """Pass frames to the client's handler, with harmful content removed.

    :param handler: handles a frame; returns whether the frame completed a method.
    :param limit_bytes: the largest body that is passed on, in bytes.
    """

    def __init__(self, handler: OnFrame, limit_bytes: int) -> None:
        self._handler = handler
        self._limit_bytes = limit_bytes
        self._to_skip: dict[int, int] = {}  #: bytes of body still to discard, by channel

    def __call__(self, frame: Frame) -> bool:
        """Handle a frame; return whether it completed a method."""
        frame_type, channel, payload = frame
        if frame_type == _METHOD and unpack_from(">HH", payload) == spec.Basic.Deliver:
            return self._handler((_METHOD, channel, _without_routing(payload)))
        if frame_type == _HEADER:
            return self._header(channel, payload)
        if frame_type == _BODY and channel in self._to_skip:
            self._skip(channel, len(payload))
            return False
        return self._handler(frame)

    def _header(self, channel: int, payload: bytes) -> bool:
        class_id, body_bytes = unpack_from(_HEADER_START, payload)
        if not body_bytes:
            return self._handler((_HEADER, channel, _header_of(class_id, EMPTY)))
        instead = TOO_LARGE
        if body_bytes <= self._limit_bytes:
            try:
                # As a body follows, this only decodes; an exception leaves the handler's state as
                # is.
                return self._handler((_HEADER, channel, payload))
            except UnexpectedFrame:
                raise
            except Exception:  # noqa: BLE001 - decoding can raise undocumented errors
                instead = UNREADABLE
        self._to_skip[channel] = body_bytes
        return self._handler((_HEADER, channel, _header_of(class_id, instead)))

    def _skip(self, channel: int, count_bytes: int) -> None:
        self._to_skip[channel] -= count_bytes
        if self._to_skip[channel] <= 0:
            del self._to_skip[channel]


def _header_of(class_id: int, content_type: str) -> bytes:
    """Return the header of an empty body whose only property is its content type."""
    name = content_type.encode("ascii")
    return pack(">HxxQHB", class_id, 0, _CONTENT_TYPE_FLAG, len(name)) + name


def _without_routing(payload: bytes) -> bytes:
    """Remove the exchange and routing key of a delivery: unused, and possibly not UTF-8."""
    # Class and method, consumer tag with its length, delivery tag, redelivered bit.
    end = 4 + 1 + payload[4] + 8 + 1
    return bytes(payload[:end]) + b"\0\0"
