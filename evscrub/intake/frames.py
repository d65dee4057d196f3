# SPDX-License-Identifier: Apache-2.0
"""Keep content that could harm the AMQP client from it.

py-amqp decodes a message's properties while it reads the header frame, and collects the whole body
in memory. Properties that it cannot decode (tables nested a thousand deep, a time in the year 292
billion, text that is not UTF-8) raise out of its read loop with the message unacknowledged, so the
consumer hears nothing more, and so does each that takes the message after it. RabbitMQ passes all
that on. A message is acknowledged by its delivery tag, so it is enough to replace its header by one
that can be decoded.
"""

from collections.abc import Callable
from struct import pack, unpack_from

from amqp import spec
from amqp.exceptions import UnexpectedFrame

#: A frame: its type, its channel, its payload.
Frame = tuple[int, int, bytes]
OnFrame = Callable[[Frame], bool]

#: Content types of the headers that stand for what was kept back.
TOO_LARGE = "application/x-evscrub-too-large"
UNREADABLE = "application/x-evscrub-unreadable"
EMPTY = "application/x-evscrub-empty"

_METHOD, _HEADER, _BODY = 1, 2, 3
_HEADER_START = ">HxxQ"  # of AMQP 0-9-1: class, weight, body size
_CONTENT_TYPE_FLAG = 1 << 15


class FrameGuard:
    """Hand frames to the client's handler, but none that it could choke on.

    :param handler: takes a frame; returns whether that ended a method.
    :param limit_bytes: the largest body that is handed on.
    """

    def __init__(self, handler: OnFrame, limit_bytes: int) -> None:
        self._handler = handler
        self._limit_bytes = limit_bytes
        self._to_skip: dict[int, int] = {}  #: bytes of body that are still to come, by channel

    def __call__(self, frame: Frame) -> bool:
        """Handle a frame; returns whether it ended a method."""
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
                # With a body to come this only decodes; what raises leaves the handler's state.
                return self._handler((_HEADER, channel, payload))
            except UnexpectedFrame:
                raise
            except Exception:  # noqa: BLE001 - what decoding can raise is not documented
                instead = UNREADABLE
        self._to_skip[channel] = body_bytes
        return self._handler((_HEADER, channel, _header_of(class_id, instead)))

    def _skip(self, channel: int, count_bytes: int) -> None:
        self._to_skip[channel] -= count_bytes
        if self._to_skip[channel] <= 0:
            del self._to_skip[channel]


def _header_of(class_id: int, content_type: str) -> bytes:
    """Make a header of an empty body whose only property is its content type."""
    name = content_type.encode("ascii")
    return pack(">HxxQHB", class_id, 0, _CONTENT_TYPE_FLAG, len(name)) + name


def _without_routing(payload: bytes) -> bytes:
    """Empty exchange and routing key of a delivery: nobody reads them, and they may be no UTF-8."""
    # Class and method, the consumer tag with its length, the delivery tag, the redelivered bit.
    end = 4 + 1 + payload[4] + 8 + 1
    return bytes(payload[:end]) + b"\0\0"
