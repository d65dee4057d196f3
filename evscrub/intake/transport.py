# SPDX-License-Identifier: Apache-2.0
"""A kombu AMQP transport that parses each message on arrival, within bounds.

oslo.messaging's driver decodes messages after kombu and leaves three kinds unacknowledged: those
with an id that it has seen, those that the client library cannot decode, and those that end the
process. The broker would give each to the next agent. So messages are parsed here, one layer below:
the driver receives a mapping with a single key, whose value is the event or an error. The driver
can always read that mapping, and it has no message id, so the message is acknowledged.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import kombu.compression
import kombu.transport
from amqp.method_framing import frame_handler
from kombu.transport import pyamqp

from evscrub.intake import MAX_BODY_BYTES, envelope, frames
from evscrub.intake.decompression import decompress
from evscrub.intake.notification import READ, DeleteEvent, MalformedError, NotForUsError

_WITHHELD = {
    frames.TOO_LARGE: "too large",
    frames.UNREADABLE: "unreadable properties",
    frames.EMPTY: "empty",
}


class Message(pyamqp.Message):  # type: ignore[misc] # kombu is not typed
    """A message parsed on creation, so that no large body is kept until the acknowledgement.

    :param acknowledged: whether it was acknowledged on arrival.
    :param wall: returns seconds since the epoch.
    """

    def __init__(
        self,
        raw: Any,  # noqa: ANN401 - amqp is not typed
        channel: "Channel",
        *,
        acknowledged: bool,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(raw, channel)
        self._acknowledged_before = acknowledged
        self._outcome = self._read(datetime.fromtimestamp(wall(), UTC))
        self.body = b""
        for large in (self.headers, self.properties, self.errors):
            large.clear()

    @property
    def payload(self) -> dict[str, object]:
        """The mapping that the driver takes for the decoded body."""
        return {READ: self._outcome}

    def ack(self, multiple: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Acknowledge the message, unless that was done on arrival."""
        if not self._acknowledged_before:
            super().ack(multiple)

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Reject the message, unless it was acknowledged on arrival."""
        if not self._acknowledged_before:
            super().reject(requeue)

    def _read(self, now: datetime) -> DeleteEvent | NotForUsError | MalformedError:
        if self.content_type in _WITHHELD:
            return MalformedError(_WITHHELD[self.content_type])
        if self.errors:  # kombu decompresses, with the decoders below
            error = self.errors[0][1]
            known = isinstance(error, MalformedError)
            return MalformedError(str(error) if known else "unknown compression")
        try:
            return envelope.read(self.body, self.content_type, now)
        except (NotForUsError, MalformedError) as error:
            # A new exception, because traceback and context hold the body.
            return type(error)(str(error))
        except Exception as error:  # noqa: BLE001 - a sender can provoke any error
            return MalformedError(type(error).__name__)


class Channel(pyamqp.Channel):  # type: ignore[misc] # kombu is not typed
    """A channel that parses messages within bounds."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - amqp is not typed
        super().__init__(*arguments, **options)
        # Otherwise py-amqp decodes bodies with any codec that the sender names, such as punycode,
        # which takes hours for a few megabytes.
        self.auto_decode = False

    def message_to_python(self, raw_message: Any) -> Message:  # noqa: ANN401 - amqp is not typed
        """Parse a message; acknowledge a redelivered one first.

        The previous consumer did not get to acknowledge it. If parsing ends this process too, the
        message does not come again, and a sweep finds its image.
        """
        again = bool(raw_message.delivery_info.get("redelivered"))
        if again:
            self.basic_ack(raw_message.delivery_tag)
        return Message(raw_message, self, acknowledged=again)


class Connection(pyamqp.Connection):  # type: ignore[misc] # kombu is not typed
    """A connection that keeps harmful frames away from the client library."""

    Channel = Channel

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - amqp is not typed
        super().__init__(*arguments, frame_handler=_guarded, **options)


class Transport(pyamqp.Transport):  # type: ignore[misc] # kombu is not typed
    """kombu's AMQP transport, with bounds."""

    Connection = Connection


class SSLTransport(pyamqp.SSLTransport):  # type: ignore[misc] # kombu is not typed
    """The same over TLS."""

    Connection = Connection


def install() -> None:
    """Register these transports and the bounded decoders with kombu, for the whole process.

    Call it before the first connection, because kombu caches the transport of each name.
    """
    kombu.transport.TRANSPORT_ALIASES.update(
        amqp=f"{__name__}:Transport",
        pyamqp=f"{__name__}:Transport",
        amqps=f"{__name__}:SSLTransport",
    )
    for content_type in kombu.compression.encoders():
        encoder, _ = kombu.compression.get_encoder(content_type)
        bounded = partial(decompress, content_type=content_type, limit_bytes=MAX_BODY_BYTES)
        kombu.compression.register(encoder, bounded, content_type)


def _guarded(connection: Any, callback: Any) -> frames.FrameGuard:  # noqa: ANN401 - amqp is not typed
    return frames.FrameGuard(frame_handler(connection, callback), MAX_BODY_BYTES)
