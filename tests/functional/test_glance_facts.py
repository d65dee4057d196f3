# SPDX-License-Identifier: Apache-2.0
"""Facts about Glance that evscrub relies on, verified with a real one.

If one of these fails with a new Glance, revise evscrub's rules.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import oslo_messaging
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from oslo_config import cfg
from sqlalchemy.pool import NullPool

from evscrub.demo.glance_config import GlanceConfig, run_command
from evscrub.domain.decisions import (
    UNFINISHED,
    ImageRow,
    Leave,
    LocationRow,
    Policy,
    decide,
)
from tests.glance_client import GlanceClient
from tests.glance_process import GlanceProcess
from tests.servers import RabbitMQ, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.functional.conftest import GlanceFactory

KEY = "0123456789abcdef0123456789abcdef"


class Registry:
    """Read Glance's database."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, poolclass=NullPool)

    def rows(self, table: str, image_id: str) -> list[dict[str, Any]]:
        """Return an image's rows of a table, the oldest first."""
        column = "id" if table == "images" else "image_id"
        order = "created_at" if table == "images" else "id"
        query = sa.text(f"SELECT * FROM {table} WHERE {column} = :id ORDER BY {order}")
        with self._engine.connect() as connection:
            rows = connection.execute(query, {"id": image_id}).mappings().all()
        return [{name: _plain(name, value) for name, value in row.items()} for row in rows]

    def image(self, image_id: str) -> dict[str, Any]:
        """Return an image's row."""
        (row,) = self.rows("images", image_id)
        return row

    def locations(self, image_id: str) -> dict[str, dict[str, Any]]:
        """Return an image's location rows by store."""
        rows = self.rows("image_locations", image_id)
        return {json.loads(row["meta_data"])["store"]: row for row in rows}


def _plain(name: str, value: object) -> object:
    """Return a column's value in a form common to all kinds of database."""
    if name == "deleted":
        return bool(value)
    if name.endswith("_at") and isinstance(value, str):  # SQLite has no type for times
        return dt.datetime.fromisoformat(value)
    return value


@dataclass
class Event:
    """A notification, and the status in the registry when it arrived."""

    publisher: str
    type: str
    payload: dict[str, Any]
    status_then: str


@dataclass
class Bus:
    """Collect the notifications of priority info on evscrub's topic."""

    registry: Registry
    events: list[Event] = field(default_factory=list)

    def info(
        self, _context: object, publisher: str, kind: str, payload: dict[str, Any], _meta: object
    ) -> None:
        """Record a notification."""
        status = ""
        if kind == "image.delete":
            status = self.registry.image(payload["id"])["status"]
        self.events.append(Event(publisher, kind, payload, status))

    def wait(self, kind: str, image_id: str) -> Event:
        """Wait for an image's first event of a type, and return it."""
        wait_until(lambda: bool(self.find(kind, image_id)), 60, f"{kind} of {image_id}")
        return self.find(kind, image_id)[0]

    def find(self, kind: str, image_id: str) -> list[Event]:
        """Return the events of a type that have arrived for an image."""
        return [e for e in self.events if e.type == kind and e.payload.get("id") == image_id]


@pytest.fixture(scope="module")
def server(glance: GlanceFactory, database_url: str, rabbitmq: RabbitMQ) -> GlanceProcess:
    stores = {"fast": "file", "archive": "file"}
    return glance(database_url=database_url, transport_url=rabbitmq.url, stores=stores)


@pytest.fixture(scope="module")
def client(server: GlanceProcess) -> Iterator[GlanceClient]:
    with GlanceClient(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def registry(database_url: str) -> Registry:
    return Registry(database_url)


@pytest.fixture(scope="module")
def bus(server: GlanceProcess, registry: Registry) -> Iterator[Bus]:
    bus = Bus(registry)
    conf = cfg.ConfigOpts()
    conf([], project="evscrub-tests", default_config_files=[])
    transport = oslo_messaging.get_notification_transport(conf, url=server.config.transport_url)
    target = oslo_messaging.Target(topic="evscrub", exchange="glance")
    listener = oslo_messaging.get_notification_listener(
        transport, [target], [bus], executor="threading"
    )
    listener.start()
    yield bus
    listener.stop()
    listener.wait()
    transport.cleanup()


def data(server: GlanceProcess, store: str, image_id: str) -> Path:
    return server.config.data_directory(store) / image_id


def new_image(client: GlanceClient, *, copies: bool = False, **fields: Any) -> str:
    """Create an image with data in the store `fast`, and in `archive` if `copies`."""
    image_id = client.create("an image", **fields)
    client.upload(image_id, b"data")
    if copies:
        client.copy(image_id, "archive")
    return image_id


def wait_past(moment: dt.datetime) -> None:
    """Wait until the time differs even in MySQL, whose DATETIME has whole seconds."""
    until = moment.replace(tzinfo=dt.UTC).timestamp() + 1.6
    wait_until(lambda: time.time() > until, 5, "a later second")


def glance_scrubber(config: GlanceConfig, *arguments: str) -> None:
    """Run Glance's own scrubber once."""
    done = run_command(config, "tests.functional.scrubber", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_delete_notifies_after_its_commit(
    client: GlanceClient, bus: Bus, rabbitmq: RabbitMQ
) -> None:
    image_id = new_image(client, owner="alice", copies=True)
    client.delete(image_id)
    event = bus.wait("image.delete", image_id)
    assert event.publisher.startswith("image.")
    assert event.status_then == "pending_delete"
    payload = event.payload
    assert payload["status"] == "pending_delete"
    assert payload["owner"] == "alice"
    assert payload["size"] == len(b"data")
    assert payload["deleted"] is True
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", payload["deleted_at"])
    assert "locations" not in payload
    assert "file:" not in json.dumps(payload)
    # Both topics have a queue of their own, and ours is the one that was read.
    wait_until(lambda: rabbitmq.list_queues()["evscrub.info"] == 0, 60, "all is read")
    assert rabbitmq.list_queues()["notifications.info"] > 0


def test_delete_leaves_rows_pending_and_data_in_place(
    client: GlanceClient, registry: Registry, server: GlanceProcess
) -> None:
    image_id = new_image(client, copies=True, properties={"colour": "red"}, tags=["old"])
    client.add_member(image_id, "bob")
    before = dt.datetime.now(dt.UTC).replace(tzinfo=None, microsecond=0)
    client.delete(image_id)
    image = registry.image(image_id)
    assert (image["status"], image["deleted"]) == ("pending_delete", True)
    assert before - dt.timedelta(seconds=1) <= image["deleted_at"]
    assert image["deleted_at"] <= image["updated_at"] + dt.timedelta(seconds=1)
    locations = registry.locations(image_id)
    assert set(locations) == {"fast", "archive"}
    for store, row in locations.items():
        assert (row["status"], row["deleted"]) == ("pending_delete", True)
        assert row["value"] == f"file://{data(server, store, image_id)}"
        assert json.loads(row["meta_data"]) == {"store": store}
        assert row["deleted_at"] <= image["deleted_at"]
        assert data(server, store, image_id).read_bytes() == b"data"
    for table in ("image_properties", "image_tags", "image_members"):
        rows = registry.rows(table, image_id)
        assert rows
        assert all(row["deleted"] for row in rows)


def test_deleted_image_without_data_is_pending_without_locations(
    client: GlanceClient, registry: Registry, bus: Bus
) -> None:
    image_id = client.create("empty")
    client.delete(image_id)
    event = bus.wait("image.delete", image_id)
    image = registry.image(image_id)
    assert registry.rows("image_locations", image_id) == []
    assert image["deleted"]
    assert (image["status"], event.payload["status"]) == ("deleted", "deleted")


@pytest.mark.parametrize("way", ["stores", "patch"])
def test_location_removed_from_a_live_image_is_pending_without_an_event(
    way: str, client: GlanceClient, registry: Registry, server: GlanceProcess, bus: Bus
) -> None:
    image_id = new_image(client, copies=True)
    updated_at = registry.image(image_id)["updated_at"]
    wait_past(updated_at)
    if way == "stores":
        client.delete_location(image_id, "archive")
    else:
        urls = [location["url"] for location in client.get(image_id)["locations"]]
        client.remove_location(image_id, next(i for i, u in enumerate(urls) if "/archive/" in u))
    image = registry.image(image_id)
    assert (image["status"], image["deleted"]) == ("active", False)
    assert image["updated_at"] > updated_at
    locations = registry.locations(image_id)
    assert (locations["fast"]["status"], locations["fast"]["deleted"]) == ("active", False)
    archived = locations["archive"]
    assert (archived["status"], archived["deleted"]) == ("pending_delete", True)
    assert archived["deleted_at"] is not None
    glance_scrubber(server.config)
    assert data(server, "archive", image_id).read_bytes() == b"data"
    assert client.download(image_id) == b"data"
    # A later event of the same image says that an earlier one would have come by now.
    client.delete(image_id)
    bus.wait("image.delete", image_id)
    assert len(bus.find("image.delete", image_id)) == 1


def test_later_delete_keeps_the_time_of_a_removed_location(
    client: GlanceClient, registry: Registry
) -> None:
    image_id = new_image(client, copies=True)
    client.delete_location(image_id, "archive")
    first = registry.locations(image_id)["archive"]["deleted_at"]
    wait_past(first)
    client.delete(image_id)
    locations = registry.locations(image_id)
    assert locations["archive"]["deleted_at"] == first
    assert locations["fast"]["deleted_at"] > first


def test_failed_import_leaves_locations_pending_of_an_image_that_is_not_active(
    client: GlanceClient, registry: Registry, server: GlanceProcess
) -> None:
    """The stores that had succeeded before another one failed."""
    image_id = client.create("an image")
    data(server, "archive", image_id).write_bytes(b"in the way")
    client.import_into(image_id, b"data", ["fast", "archive"])
    wait_until(lambda: "fast" in registry.locations(image_id), 60, "the first store's row")
    wait_until(
        lambda: not client.get(image_id).get("os_glance_import_task"), 60, "the end of the import"
    )
    image = registry.image(image_id)
    (row,) = registry.locations(image_id).values()
    assert (row["status"], row["deleted"]) == ("pending_delete", True)
    assert row["deleted_at"] is not None
    assert data(server, "fast", image_id).read_bytes() == b"data"
    assert (image["status"], image["deleted"]) == ("importing", False)
    decision = decide(
        ImageRow(image_id, None, None, image["status"], image["deleted"], None),
        [LocationRow(row["id"], "", None, row["status"], True, row["deleted_at"], None)],
        row["deleted_at"] + dt.timedelta(days=1),
        Policy(scrub_time=dt.timedelta(0), claim_timeout=dt.timedelta(minutes=5)),
    )
    assert decision == Leave(UNFINISHED)
    client.delete(image_id)
    assert registry.image(image_id)["status"] in {"deleted", "pending_delete"}
    assert registry.locations(image_id)["fast"]["status"] == "pending_delete"


def test_glances_restore_breaks_the_image_and_a_second_delete_leaks_its_data(
    client: GlanceClient, registry: Registry, server: GlanceProcess
) -> None:
    image_id = new_image(client, properties={"colour": "red"}, tags=["old"])
    client.delete(image_id)
    glance_scrubber(server.config, "--restore", image_id)
    image = registry.image(image_id)
    assert (image["status"], image["deleted"]) == ("active", False)
    assert image["deleted_at"] is not None  # what glance-manage db purge goes by
    row = registry.locations(image_id)["fast"]
    assert (row["status"], row["deleted"]) == ("pending_delete", True)
    shown = client.get(image_id)
    assert shown["status"] == "active"
    assert shown["locations"] == []
    assert shown["tags"] == []
    assert "colour" not in shown
    assert client.download(image_id) == b""
    client.delete(image_id)
    glance_scrubber(server.config)
    assert registry.image(image_id)["status"] == "deleted"
    assert registry.locations(image_id)["fast"]["status"] == "pending_delete"
    assert data(server, "fast", image_id).read_bytes() == b"data"


def test_scrubbed_image_cannot_be_restored(
    client: GlanceClient, registry: Registry, server: GlanceProcess
) -> None:
    image_id = new_image(client)
    client.delete(image_id)
    glance_scrubber(server.config)
    assert registry.image(image_id)["status"] == "deleted"
    assert registry.locations(image_id)["fast"]["status"] == "deleted"
    assert not data(server, "fast", image_id).exists()
    with pytest.raises(AssertionError, match="ERROR"):
        glance_scrubber(server.config, "--restore", image_id)


def test_glance_scrubber_ignores_community_images(
    client: GlanceClient, registry: Registry, server: GlanceProcess
) -> None:
    image_id = new_image(client, visibility="community")
    client.delete(image_id)
    glance_scrubber(server.config)
    assert registry.image(image_id)["status"] == "pending_delete"
    assert data(server, "fast", image_id).exists()


def test_image_keeps_the_case_of_its_id(
    client: GlanceClient, registry: Registry, server: GlanceProcess, bus: Bus
) -> None:
    wanted = str(uuid.uuid4()).upper()
    image_id = new_image(client, image_id=wanted)
    assert image_id == wanted
    client.delete(image_id)
    assert bus.wait("image.delete", wanted).payload["id"] == wanted
    assert registry.image(wanted)["id"] == wanted
    assert registry.locations(wanted)["fast"]["image_id"] == wanted
    assert data(server, "fast", wanted).exists()


def test_encrypted_location_is_aes_cbc_in_base64url(glance: GlanceFactory) -> None:
    server = glance(stores={"fast": "file"}, metadata_encryption_key=KEY)
    registry = Registry(server.config.database_url)
    with GlanceClient(server.url) as client:
        image_id = new_image(client)
        client.delete(image_id)
    value = registry.locations(image_id)["fast"]["value"]
    assert "file:" not in value
    raw = base64.urlsafe_b64decode(value)
    decryptor = Cipher(algorithms.AES(KEY.encode()), modes.CBC(raw[:16])).decryptor()
    text, _, padding = (decryptor.update(raw[16:]) + decryptor.finalize()).partition(b"\0")
    assert text.decode() == f"file://{data(server, 'fast', image_id)}"
    assert len(text) + 1 + len(padding) == len(raw) - 16


def test_data_is_deleted_immediately_without_delayed_delete(
    glance: GlanceFactory, rabbitmq: RabbitMQ
) -> None:
    server = glance(delayed_delete=False, transport_url=rabbitmq.url, topics=("at_once",))
    registry = Registry(server.config.database_url)
    with GlanceClient(server.url) as client:
        image_id = new_image(client)
        path = server.config.data_directory() / image_id
        assert path.exists()
        client.delete(image_id)
        with pytest.raises(httpx.HTTPStatusError, match="404"):
            client.get(image_id)
    assert not path.exists()
    image = registry.image(image_id)
    assert (image["status"], image["deleted"]) == ("deleted", True)
    (location,) = registry.rows("image_locations", image_id)
    assert (location["status"], location["meta_data"]) == ("deleted", "{}")
    assert rabbitmq.list_queues().get("at_once.info", 0) > 0
