# SPDX-License-Identifier: Apache-2.0
"""Malicious messages, sent through a real RabbitMQ to a real agent.

After each message, the agent must process the next event, and the queue must be empty: a message
that stays there would reach the next agent.
"""

from __future__ import annotations

import bz2
import json
import pickle
import signal
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import amqp
import pytest

from evscrub.demo.glance_config import GlanceConfig, migrate, write_config
from tests.functional.agents import AgentProcess, wait_for
from tests.functional.seed import Seed
from tests.servers import RabbitMQ, free_port

EXCHANGE, QUEUE = "glance", "evscrub.info"
JSON = b"application/json"
#: What reading a message may take at most; the bombs unpack to twice that.
ROOM_KB = 100 << 10
BOMB_BYTES = 200 << 20


class Content:
    """A message whose properties are sent unchanged, however invalid."""

    def __init__(self, body: bytes, properties: bytes) -> None:
        self.body = body
        self.properties: dict[str, object] = {}
        self._bytes = properties

    def _serialize_properties(self) -> bytes:
        return self._bytes


def properties(
    content_type: bytes = JSON, encoding: bytes = b"utf-8", headers: bytes | None = None
) -> bytes:
    flags = 0xC000 | (0 if headers is None else 0x2000)
    found = struct.pack(">H", flags)
    found += bytes([len(content_type)]) + content_type + bytes([len(encoding)]) + encoding
    return found if headers is None else found + long_string(headers)


def long_string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def entry(key: bytes, kind: bytes, value: bytes) -> bytes:
    """Encode an entry of a table of headers."""
    return bytes([len(key)]) + key + kind + value


def compressed(by: bytes) -> bytes:
    return properties(headers=entry(b"compression", b"S", long_string(by)))


def nested(kind: bytes, levels: int) -> bytes:
    """Encode headers of nested tables (``F``) or arrays (``A``)."""
    value = b"t\x01"
    for _ in range(levels):
        inner = b"\x01a" + value if kind == b"F" else value
        value = kind + long_string(inner)
    return b"\x01a" + value


def notification(image_id: str, unique_id: str) -> bytes:
    deleted_at = datetime.now(UTC) - timedelta(seconds=10)
    message = {
        "event_type": "image.delete",
        "payload": {
            "id": image_id,
            "owner": "owner",
            "status": "pending_delete",
            "deleted_at": deleted_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        "_unique_id": unique_id,
    }
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def envelope(message: str, version: object = "2.0") -> bytes:
    return json.dumps({"oslo.version": version, "oslo.message": message}).encode()


#: Each makes a body and its properties.
HOSTILE: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "bomb of bzip2": lambda: (bz2.compress(bytes(BOMB_BYTES)), compressed(b"application/x-bz2")),
    "bomb of gzip": lambda: (zlib.compress(bytes(BOMB_BYTES)), compressed(b"gzip")),
    "bomb as a charset": lambda: (
        bz2.compress(bytes(BOMB_BYTES)),
        properties(b"text/x-any", b"bz2"),
    ),
    "charset that takes hours": lambda: (
        b"a" * 100 + b"-" + b"9" * 400_000,
        properties(JSON, b"punycode"),
    ),
    "unknown compression": lambda: (b"{}", compressed(b"nix")),
    "large body": lambda: (b'"' + b"a" * 100_000_000 + b'"', properties()),
    "tables in tables": lambda: (b"{}", properties(headers=nested(b"F", 2000))),
    "arrays in arrays": lambda: (b"{}", properties(headers=nested(b"A", 2000))),
    "tables without a body": lambda: (b"", properties(headers=nested(b"F", 2000))),
    "time without an end": lambda: (
        b"{}",
        properties(headers=entry(b"a", b"T", struct.pack(">Q", 1 << 63))),
    ),
    "content type that is no text": lambda: (b"{}", properties(b"\xff\xfe")),
    "pickle": lambda: (pickle.dumps({"a": 1}), properties(b"application/x-python-serialize")),
    "deep JSON": lambda: (b"[" * 100_000 + b"]" * 100_000, properties()),
    "deep JSON in an envelope": lambda: (
        envelope('{"a":' * 50_000 + "1" + "}" * 50_000),
        properties(),
    ),
    "a number of a million digits": lambda: (envelope("9" * 1_000_000), properties()),
    "no mapping": lambda: (b"[1, 2]", properties()),
    "no envelope": lambda: (envelope("{}", {"a": 1}), properties()),
    "nothing": lambda: (b"", properties()),
}


class Bus:
    """Publish messages and inspect the queue."""

    def __init__(self, rabbitmq: RabbitMQ) -> None:
        self.rabbitmq = rabbitmq
        self._connection = amqp.Connection(
            host=f"127.0.0.1:{rabbitmq.port}",
            userid="guest",
            password="guest",
            virtual_host=rabbitmq.vhost,
        )
        self._connection.connect()
        self._channel = self._connection.channel()

    def close(self) -> None:
        self._connection.close()

    def publish(self, body: bytes, raw: bytes, *, routing_key: str | bytes = QUEUE) -> None:
        self._channel.basic_publish(Content(body, raw), EXCHANGE, routing_key)

    def wait_empty(self) -> None:
        """Wait until no message is ready or unacknowledged."""
        wait_for("an empty queue", lambda: self.rabbitmq.list_queues()[QUEUE] == 0)


class World:
    """A registry without a Glance, the bus, and an agent that finds images only on the bus."""

    def __init__(self, seed: Seed, agent: AgentProcess, bus: Bus) -> None:
        self.seed = seed
        self.agent = agent
        self.bus = bus

    def image(self) -> str:
        """Add an image that is due."""
        image_id = self.seed.add(deleted_ago=10)
        self.seed.write()
        return image_id

    def check_hears(self) -> None:
        """Check that the agent processes an event and empties the queue."""
        image_id = self.image()
        self.bus.publish(notification(image_id, uuid.uuid4().hex), properties())
        self.wait_gone(image_id)
        self.bus.wait_empty()

    def wait_gone(self, image_id: str) -> None:
        path = self.seed.path(image_id)
        wait_for("scrubbing of an image", lambda: not path.exists())

    @property
    def peak_kb(self) -> int:
        """Peak memory of the agent in KiB."""
        assert self.agent.process is not None
        status = Path(f"/proc/{self.agent.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0])


@pytest.fixture(scope="module")
def world(rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("glance")
    database_url = f"sqlite:///{directory / 'glance.sqlite'}"
    config = GlanceConfig(
        directory, free_port(), database_url, rabbitmq.url, stores={"fast": "file", "slow": "file"}
    )
    write_config(config)
    migrate(config)
    options = {"sweep": {"interval": 3600}, "DEFAULT": {"debug": False}}
    bus = Bus(rabbitmq)
    with AgentProcess(tmp_path_factory.mktemp("agent"), config, options) as agent:
        made = World(Seed(config), agent, bus)
        yield made
        made.bus.close()
        assert "Traceback" not in agent.log
        assert "already acknowledged" not in agent.log
        dropped = [line for line in agent.log.splitlines() if "Dropped notifications" in line]
        assert 1 <= len(dropped) <= 10  # one a minute at most


@pytest.mark.parametrize("name", HOSTILE)
def test_malicious_message_is_harmless(world: World, name: str) -> None:
    world.check_hears()
    before = world.peak_kb
    world.bus.publish(*HOSTILE[name]())
    world.check_hears()
    assert world.peak_kb - before < ROOM_KB


def test_routing_key_that_is_not_text_is_harmless(world: World) -> None:
    # The queue is reached by a further key in the headers, as RabbitMQ allows.
    key = b"S" + long_string(QUEUE.encode())
    headers = b"\x02CC" + b"A" + long_string(key)
    world.bus.publish(b"{}", properties(headers=headers), routing_key=b"\xff\xfe")
    world.check_hears()


def test_agent_survives_many_copies_of_a_message(world: World) -> None:
    copy = notification(str(uuid.uuid4()), "the same")
    for _ in range(1100):
        world.bus.publish(copy, properties())
    world.check_hears()


def test_redelivered_message_is_acknowledged_first(world: World) -> None:
    image_id = world.image()
    world.agent.signal(signal.SIGSTOP)
    world.bus.publish(notification(image_id, uuid.uuid4().hex), properties())
    world.bus.publish(b"{", properties())
    wait_for("delivery", lambda: world.bus.rabbitmq.list_queues()[QUEUE] == 2)
    world.bus.close()
    assert world.bus.rabbitmq.close_all_connections() >= 1
    world.bus = Bus(world.bus.rabbitmq)
    world.agent.signal(signal.SIGCONT)
    world.wait_gone(image_id)
    world.bus.wait_empty()
    world.check_hears()
