# SPDX-License-Identifier: Apache-2.0
"""A kombu transport for AMQP that reads a message within bounds, at the moment it arrives.

oslo.messaging's driver takes a message from kombu as it is, decodes it, and leaves three kinds of
it unacknowledged: what it has seen the id of, what the client library cannot decode, and what ends
the process. Each then waits for the next agent. So a message is read here, one layer below: the
driver is handed a mapping with one key, whose value is the event, or the error that says why there
is none. It is always well-formed for the driver and has no id, so it is acknowledged as any other.
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

_KEPT_BACK = {
    frames.TOO_LARGE: "too large",
    frames.UNREADABLE: "unreadable properties",
    frames.EMPTY: "empty",
}


class Message(pyamqp.Message):  # type: ignore[misc] # kombu is not typed
    """A message that is read at once, so that nothing large stays until it is acknowledged.

    :param acknowledged: whether it was acknowledged when it came.
    :param wall: seconds since the epoch.
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
        """What the driver takes for the decoded body."""
        return {READ: self._outcome}

    def ack(self, multiple: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Acknowledge the message, unless it was when it came."""
        if not self._acknowledged_before:
            super().ack(multiple)

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Reject the message, unless it was acknowledged when it came."""
        if not self._acknowledged_before:
            super().reject(requeue)

    def _read(self, now: datetime) -> DeleteEvent | NotForUsError | MalformedError:
        if self.content_type in _KEPT_BACK:
            return MalformedError(_KEPT_BACK[self.content_type])
        if self.errors:  # kombu decompresses, with the decoders below
            error = self.errors[0][1]
            known = isinstance(error, MalformedError)
            return MalformedError(str(error) if known else "unknown compression")
        try:
            return envelope.read(self.body, self.content_type, now)
        except (NotForUsError, MalformedError) as error:
            # Without traceback and context, which hold the body.
            return type(error)(str(error))
        except Exception as error:  # noqa: BLE001 - anybody may have sent anything
            return MalformedError(type(error).__name__)


class Channel(pyamqp.Channel):  # type: ignore[misc] # kombu is not typed
    """A channel whose messages are read within bounds."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - amqp is not typed
        super().__init__(*arguments, **options)
        # Else py-amqp decodes bodies with whatever codec the sender names, such as punycode,
        # which takes hours for a few megabytes.
        self.auto_decode = False

    def message_to_python(self, raw_message: Any) -> Message:  # noqa: ANN401 - amqp is not typed
        """Read a message; one that was delivered before is acknowledged first.

        Whoever had it then did not come to acknowledge it. Should reading it end this process too,
        it is gone: a sweep finds what it told of.
        """
        again = bool(raw_message.delivery_info.get("redelivered"))
        if again:
            self.basic_ack(raw_message.delivery_tag)
        return Message(raw_message, self, acknowledged=again)


class Connection(pyamqp.Connection):  # type: ignore[misc] # kombu is not typed
    """A connection that keeps harmful content from the client library."""

    Channel = Channel

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - amqp is not typed
        super().__init__(*arguments, frame_handler=_guarded, **options)


class Transport(pyamqp.Transport):  # type: ignore[misc] # kombu is not typed
    """kombu's transport for AMQP, with bounds."""

    Connection = Connection


class SSLTransport(pyamqp.SSLTransport):  # type: ignore[misc] # kombu is not typed
    """The same over TLS."""

    Connection = Connection


def install() -> None:
    """Make kombu use these transports and bounded decoders, in the whole process.

    Must come before the first connection: kombu remembers the transport that a name stands for.
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
