# SPDX-License-Identifier: Apache-2.0
"""Reading what strangers send: bounds on size, on what is decoded, and on the AMQP client."""

from __future__ import annotations

import bz2
import json
import lzma
import pickle
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import amqp
import kombu.compression
import kombu.transport
import pytest
from amqp.method_framing import frame_handler
from hypothesis import given
from hypothesis import strategies as st

from evscrub.intake import MAX_BODY_BYTES, envelope, frames, transport
from evscrub.intake.decompression import decompress
from evscrub.intake.notification import READ, DeleteEvent, MalformedError, NotForUsError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JSON = "application/json"
LIMIT = 1 << 20
CODECS: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": zlib.compress,
    "application/x-bz2": bz2.compress,
    "application/x-lzma": lzma.compress,
}
#: Its decoder asks for 128 MB.
LZMA_OF_LARGE_DICTIONARY = lzma.compress(
    b"a", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 27}]
)


def notification(image_id: str = "an image", **extra: object) -> dict[str, object]:
    payload = {
        "id": image_id,
        "owner": "owner",
        "status": "pending_delete",
        "deleted_at": "2025-12-31T00:00:00Z",
    }
    return {"event_type": "image.delete", "payload": payload | extra, "_unique_id": "1"}


def enveloped(message: object, version: object = "2.0") -> bytes:
    return json.dumps({"oslo.version": version, "oslo.message": message}).encode()


def test_every_codec_that_kombu_knows_here_has_a_bound() -> None:
    assert set(kombu.compression.encoders()) == set(CODECS)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT])
def test_what_fits_is_decompressed(codec: str, size: int) -> None:
    data = b"a" * size
    assert decompress(CODECS[codec](data), codec, LIMIT) == data


@pytest.mark.costly
@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_takes_no_more_than_its_limit(codec: str) -> None:
    bomb = CODECS[codec](bytes(50 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError, match="too large"):
            decompress(bomb, codec, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("codec", CODECS)
def test_damage_is_told(codec: str) -> None:
    whole = CODECS[codec](b"some text")
    for data in (b"", b"junk", whole[:-5]):
        with pytest.raises(MalformedError, match="cannot be decompressed"):
            decompress(data, codec, LIMIT)


def test_a_decoder_gets_no_large_dictionary() -> None:
    with pytest.raises(MalformedError, match="cannot be decompressed"):
        decompress(LZMA_OF_LARGE_DICTIONARY, "application/x-lzma", LIMIT)


def test_another_codec_is_refused() -> None:
    with pytest.raises(MalformedError, match="unknown compression"):
        decompress(b"", "application/x-new", LIMIT)


@given(st.sampled_from(sorted(CODECS)), st.binary())
def test_junk_is_malformed_and_nothing_else(codec: str, data: bytes) -> None:
    try:
        decompress(data, codec, LIMIT)
    except MalformedError:
        return


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(notification()).encode(),
        enveloped(json.dumps(notification())),
        enveloped(json.dumps(notification()), "2.1"),
    ],
    ids=["plain", "enveloped", "newer"],
)
def test_a_notification_is_read(body: bytes) -> None:
    event = envelope.read(body, JSON, NOW)
    assert (event.image_id, event.owner) == ("an image", "owner")


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b" " * MAX_BODY_BYTES + b"{}", JSON, "too large"),
        (pickle.dumps(notification()), "application/x-python-serialize", "not JSON"),
        (b"a: 1", "application/x-yaml", "not JSON"),
        (b"\x81\xa1a\x01", "application/x-msgpack", "not JSON"),
        (b"{}", "text/plain", "not JSON"),
        (b"{}", None, "not JSON"),
        (b"\xff\xfe\xfd", JSON, "not JSON"),
        (b"[" * 100_000, JSON, "not JSON"),
        (b'{"a":' * 100_000, JSON, "not JSON"),
        (enveloped('{"a":' * 50_000 + "1" + "}" * 50_000), JSON, "not JSON"),
        (b'{"payload": ' + b"9" * 1_000_000 + b"}", JSON, "not JSON"),
        (enveloped(enveloped(json.dumps(notification())).decode()), JSON, None),
        (enveloped({"event_type": "image.delete"}), JSON, "not JSON"),
        (enveloped(7), JSON, "not JSON"),
        (enveloped("{}", "1.0"), JSON, "unknown envelope"),
        (enveloped("{}", {"a": 1}), JSON, "unknown envelope"),
        (b'"text"', JSON, "no mapping"),
        (b"[[1, 2]]", JSON, "no mapping"),
        (enveloped("[]"), JSON, "no mapping"),
        (json.dumps(notification(owner="o" * 256)).encode(), JSON, "no owner"),
        (json.dumps(notification("i" * 37)).encode(), JSON, "no image id"),
        (bz2.compress(bz2.compress(b"{}")), JSON, "not JSON"),
    ],
)
def test_what_is_not_read(body: bytes, content_type: str | None, reason: str | None) -> None:
    if reason is None:  # an envelope in an envelope is some other message
        with pytest.raises(NotForUsError):
            envelope.read(body, content_type, NOW)
        return
    with pytest.raises(MalformedError, match=f"^{reason}$"):
        envelope.read(body, content_type, NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.binary()
    | json_values.map(lambda value: json.dumps(value).encode())
    | json_values.map(lambda value: enveloped(json.dumps(value)))
    | json_values.map(enveloped)
)
def test_whatever_is_sent_is_an_event_or_one_of_two_errors(body: bytes) -> None:
    try:
        event = envelope.read(body, JSON, NOW)
    except (NotForUsError, MalformedError):
        return
    assert len(event.image_id) <= 36


# -- frames


def shortstr(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def table(levels: int) -> bytes:
    """A table of header values, nested so deep."""
    entry = b"\x01at\x01"
    for _ in range(levels):
        entry = b"\x01aF" + struct.pack(">I", len(entry)) + entry
    return struct.pack(">I", len(entry)) + entry


def header(size: int, flags: int = 0, properties: bytes = b"") -> bytes:
    return struct.pack(">HxxQH", 60, size, flags) + properties


def deliver(tag: int = 1, routing_key: bytes = b"key", *, redelivered: bool = False) -> bytes:
    start = struct.pack(">HH", 60, 60) + shortstr(b"consumer")
    return (
        start + struct.pack(">QB", tag, redelivered) + shortstr(b"glance") + shortstr(routing_key)
    )


class Wire:
    """py-amqp's own handler of frames behind the guard."""

    def __init__(self, limit: int = 100) -> None:
        self.messages: list[Any] = []
        self.arguments: list[Any] = []
        library = frame_handler(SimpleNamespace(bytes_recv=0), self._take)
        self.guard = frames.FrameGuard(library, limit)

    def _take(self, channel: int, method: object, arguments: bytes, message: Any) -> None:
        decoded, _ = amqp.serialization.loads("sLbss", arguments, 4)
        self.arguments.append(decoded)
        self.messages.append(message)

    def send(self, *payloads: bytes, channel: int = 1) -> bool:
        """Send a delivery, a header, and what follows as body."""
        for frame_type, payload in zip([1, 2, *[3] * len(payloads)], payloads, strict=False):
            done = self.guard((frame_type, channel, payload))
        return done


UNREADABLE = {
    "deep table": header(2, 1 << 13, table(2000)),
    "content type": header(2, 1 << 15, shortstr(b"\xff\xfe")),
    "content encoding": header(2, 1 << 14, shortstr(b"\xff\xfe")),
    "time": header(2, 1 << 13, struct.pack(">I", 11) + b"\x01aT" + struct.pack(">Q", 1 << 63)),
    "type of value": header(2, 1 << 13, struct.pack(">I", 3) + b"\x01a?"),
    "cut off": header(2, 1 << 13, b"\xff\xff"),
}


def test_content_passes_as_it_is() -> None:
    wire = Wire()
    assert wire.send(deliver(7), header(4, 1 << 15, shortstr(b"a/b")), b"bo", b"dy")
    (message,) = wire.messages
    assert bytes(message.body) == b"body"
    assert message.properties == {"content_type": "a/b"}
    assert wire.arguments == [["consumer", 7, False, "", ""]]


@pytest.mark.parametrize("name", UNREADABLE)
def test_properties_that_cannot_be_decoded_cost_their_message_alone(name: str) -> None:
    wire = Wire()
    wire.send(deliver(1), UNREADABLE[name], b"a", b"b")
    assert wire.send(deliver(2), header(1), b"c")
    first, second = wire.messages
    assert first.properties == {"content_type": frames.UNREADABLE}
    assert not first.body
    assert bytes(second.body) == b"c"
    assert [arguments[1] for arguments in wire.arguments] == [1, 2]


def test_a_large_body_is_not_kept() -> None:
    wire = Wire(limit=10)
    chunk = bytes(1 << 20)
    tracemalloc.start()
    try:
        wire.send(deliver(1), header(64 << 20), *[chunk] * 64)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert wire.messages[0].properties == {"content_type": frames.TOO_LARGE}
    assert wire.send(deliver(2), header(10), b"0123456789")
    assert bytes(wire.messages[1].body) == b"0123456789"


def test_channels_are_skipped_apart() -> None:
    wire = Wire(limit=10)
    wire.send(deliver(1), header(20), b"0" * 10)
    assert wire.send(deliver(2), header(3), b"abc", channel=2)
    wire.guard((3, 1, b"0" * 10))
    assert wire.send(deliver(3), header(3), b"def")
    assert [bytes(message.body or b"") for message in wire.messages] == [b"", b"abc", b"def"]


def test_an_empty_body_is_told_without_a_look_at_its_properties() -> None:
    wire = Wire()
    assert wire.send(deliver(1), header(0, 1 << 13, table(2000)))
    assert wire.messages[0].properties == {"content_type": frames.EMPTY}


def test_a_routing_key_need_be_no_text() -> None:
    wire = Wire()
    assert wire.send(deliver(1, b"\xff\xfe", redelivered=True), header(1), b"a")
    assert wire.arguments == [["consumer", 1, True, "", ""]]


def test_frames_out_of_order_are_an_error() -> None:
    wire = Wire()
    with pytest.raises(amqp.exceptions.UnexpectedFrame):
        wire.guard((2, 1, header(5)))


# -- kombu's message


class FakeChannel:
    """Remembers what is asked of a channel."""

    no_ack_consumers = None

    def __init__(self) -> None:
        self.acknowledged: list[int] = []

    def basic_ack(self, tag: int, multiple: bool = False) -> None:  # noqa: FBT002 - amqp's signature
        self.acknowledged.append(tag)


def received(body: bytes, **properties: object) -> Any:
    raw = amqp.Message(body, **properties)
    raw.delivery_info = {"delivery_tag": 5, "redelivered": False}
    return raw


def read(body: bytes, **properties: object) -> Any:
    channel: Any = FakeChannel()
    message = transport.Message(received(body, **properties), channel, acknowledged=False)
    assert message.body == b""
    assert set(message.payload) == {READ}
    return message.payload[READ]


@pytest.fixture(autouse=True)
def codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_decoders", "_encoders", "_aliases"):
        registered = dict(getattr(kombu.compression, name))
        monkeypatch.setattr(kombu.compression, name, registered)
    monkeypatch.setattr(
        kombu.transport, "TRANSPORT_ALIASES", dict(kombu.transport.TRANSPORT_ALIASES)
    )
    transport.install()


def test_the_present_is_the_clock_s() -> None:
    channel: Any = FakeChannel()
    raw = received(enveloped(json.dumps(notification())), content_type=JSON)
    early = transport.Message(
        raw, channel, acknowledged=False, wall=lambda: NOW.timestamp() - 10 * 365 * 86400
    )
    assert str(early.payload[READ]) == "absurd deleted_at"


@pytest.mark.parametrize("name", [*CODECS, "gzip", "zlib", "bzip2", "bzip", "lzma", "xz"])
def test_a_compressed_notification_is_read_whatever_the_name(name: str) -> None:
    body, _ = kombu.compression.compress(enveloped(json.dumps(notification())), name)
    event = read(body, content_type=JSON, application_headers={"compression": name})
    assert isinstance(event, DeleteEvent)


@pytest.mark.parametrize("name", [*CODECS, "gzip", "bzip2", "xz"])
def test_a_compressed_bomb_is_too_large(name: str) -> None:
    body, _ = kombu.compression.compress(b"{" + b" " * (MAX_BODY_BYTES + 10) + b"}", name)
    assert len(body) < 10_000
    error = read(body, content_type=JSON, application_headers={"compression": name})
    assert str(error) == "too large"


@pytest.mark.parametrize(
    ("compression", "reason"),
    [
        ("nix", "unknown compression"),
        (7, "unknown compression"),
        ([1], "unknown compression"),
        ({"a": 1}, "unknown compression"),
        (b"\xff", "unknown compression"),
        ("bzip2", "cannot be decompressed"),
    ],
)
def test_a_compression_of_any_kind(compression: object, reason: str) -> None:
    error = read(b"{}", content_type=JSON, application_headers={"compression": compression})
    assert isinstance(error, MalformedError)
    assert str(error) == reason


@pytest.mark.parametrize(
    ("content_type", "reason"),
    [
        (frames.TOO_LARGE, "too large"),
        (frames.UNREADABLE, "unreadable properties"),
        (frames.EMPTY, "empty"),
        ("application/x-python-serialize", "not JSON"),
    ],
)
def test_what_was_kept_back_is_told(content_type: str, reason: str) -> None:
    assert str(read(b"", content_type=content_type)) == reason


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{" + b"a" * (3 << 20), None),
        (json.dumps({"event_type": "a" * (3 << 20)}).encode(), None),
        (b"a" * (3 << 20), {"compression": "bzip2"}),
        (json.dumps(notification(properties="a" * (3 << 20))).encode(), None),
    ],
    ids=["malformed", "not for us", "damaged", "an event"],
)
def test_nothing_large_stays_of_a_message(body: bytes, headers: dict[str, str] | None) -> None:
    channel: Any = FakeChannel()
    tracemalloc.start()
    try:
        size = len(body)
        copy = bytes(bytearray(body))
        raw = received(copy, content_type=JSON, application_headers=headers)
        message = transport.Message(raw, channel, acknowledged=False)
        del copy, raw
        kept, _ = tracemalloc.get_traced_memory()
        assert kept < 100_000 < size
        assert message.payload
    finally:
        tracemalloc.stop()


def test_a_forged_reading_is_read() -> None:
    assert isinstance(read(json.dumps({READ: "event"}).encode(), content_type=JSON), NotForUsError)


@pytest.mark.parametrize("redelivered", [False, True])
def test_a_message_that_came_before_is_acknowledged_before_it_is_read(redelivered: bool) -> None:
    channel = transport.Channel.__new__(transport.Channel)
    fake = FakeChannel()
    channel.basic_ack = fake.basic_ack
    channel.no_ack_consumers = None
    raw = received(b"{}", content_type=JSON)
    raw.delivery_info["redelivered"] = redelivered
    message = channel.message_to_python(raw)
    assert fake.acknowledged == ([5] if redelivered else [])
    message.ack()
    assert fake.acknowledged == [5]


def test_kombu_takes_the_bounded_transports() -> None:
    for name, wanted in (
        ("amqp", transport.Transport),
        ("pyamqp", transport.Transport),
        ("amqps", transport.SSLTransport),
    ):
        assert kombu.transport.resolve_transport(name) is wanted
