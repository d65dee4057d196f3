# SPDX-License-Identifier: Apache-2.0
"""The registry's own count: what is in it, and how often it is taken."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import anyio
import pytest
import sqlalchemy as sa
from oslo_db import exception as db_exception
from sqlalchemy.pool import StaticPool

from evscrub.domain.clock import Clock
from evscrub.registry.database import read_now
from evscrub.registry.tables import image_locations, images, metadata
from evscrub.status.registry_count import Pending, RegistryCount, RegistryCounter
from tests.unit.agent_parts import SETTINGS

#: Images are due an hour after their deletion, and later ones than in half an hour are not swept.
COUNTED = replace(SETTINGS, horizon_seconds=1800)
SCHEMES = {
    "fast": ("file", "filesystem"),
    "slow": ("file", "filesystem"),
    "ceph": ("rbd",),
    "web": ("http", "https"),
}


class Registry:
    """A registry in memory, and a counter with a clock that stands where it is put."""

    def __init__(self) -> None:
        self.boot = 1000.0
        self.count_seconds = 0.0
        self.questions = 0
        self.engine = sa.create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        metadata.create_all(self.engine)
        database: Any = SimpleNamespace(reading=self._reading)
        clock = Clock(lambda: self.boot, lambda: 0.0)
        self.counter = RegistryCounter(database, clock, SCHEMES, lambda: COUNTED)

    def _reading(self) -> Any:
        self.questions += 1
        self.boot += self.count_seconds
        return self.engine.begin()

    def add(
        self,
        owner: str | None,
        size: int | None,
        ago: timedelta | None,
        locations: Sequence[tuple[str, str | None]] = (),
        location_status: str = "pending_delete",
        **values: Any,
    ) -> None:
        """Add a deleted image.

        :param ago: since its deletion; None for one that is held.
        :param locations: URLs and metadata.
        """
        with self.engine.begin() as connection:
            deleted_at = None if ago is None else read_now(connection) - ago
            state = {"status": "pending_delete", "deleted": True} | values
            image_id = f"{owner}-{size}"
            connection.execute(
                sa.insert(images).values(
                    id=image_id, owner=owner, size=size, deleted_at=deleted_at, **state
                )
            )
            for url, text in locations:
                connection.execute(
                    sa.insert(image_locations).values(
                        image_id=image_id,
                        value=url,
                        meta_data=text,
                        status=location_status,
                        deleted=location_status != "active",
                    )
                )

    def count(self) -> RegistryCount:
        anyio.run(self.counter.refresh)
        assert self.counter.latest is not None
        return self.counter.latest

    def space(self) -> Mapping[str | None, int]:
        space = self.count().space
        assert space is not None
        return space.stores


HOURS = timedelta(hours=1)


def test_all_that_is_pending_is_counted_by_owner() -> None:
    registry = Registry()
    registry.add("one", 10, 0.25 * HOURS)
    registry.add("one", 15, 0.75 * HOURS)
    registry.add("one", 20, 2 * HOURS)
    registry.add("two", 90, None)
    registry.add(None, 5, 3 * HOURS)
    registry.add("three", 1000, 2 * HOURS, status="deleted")
    registry.add("three", 2000, None, status="active", deleted=False)
    count = registry.count()
    assert (count.at, count.due, count.later) == (1000.0, 2, 1)
    assert count.total == Pending(5, 140, 1)
    assert count.owners == (
        ("two", Pending(1, 90, 1)),
        ("one", Pending(3, 45, 0)),
        (None, Pending(1, 5, 0)),
    )


def test_the_ten_owners_with_the_most_space_are_named_and_all_are_counted() -> None:
    registry = Registry()
    for number in range(25):
        registry.add(f"owner {number:02}", 1000 + number, HOURS)
    count = registry.count()
    assert [owner for owner, _ in count.owners] == [f"owner {n:02}" for n in range(24, 14, -1)]
    assert count.total.images == 25


def named(store: str) -> str:
    return json.dumps({"store": store})


def test_bytes_count_for_each_store_that_has_them() -> None:
    registry = Registry()
    file, rbd = "file:///a/b", "rbd://fsid/pool/image/snap"
    registry.add("o", 1, HOURS, [(file, named("fast"))])
    registry.add("o", 20, None, [(file, named("fast")), (rbd, named("ceph"))])
    # Twice in a store, where it takes twice the space.
    registry.add("o", 300, HOURS, [(file, named("slow")), (f"{file}c", named("slow"))])
    registry.add("o", None, HOURS, [(file, named("slow"))])
    assert registry.space() == {"fast": 21, "slow": 600, "ceph": 20, "web": 0}


@pytest.mark.parametrize(
    ("url", "text", "store"),
    [
        ("rbd://fsid/pool/image/snap", "{}", "ceph"),
        ("rbd://fsid/pool/image/snap", None, "ceph"),
        ("https://there.test/image", "{}", "web"),
        ("rbd://fsid/pool/image/snap", json.dumps({"backend": "slow"}), "slow"),
        ("rbd://fsid/pool/image/snap", json.dumps({"note": "x", "store": "slow"}), "slow"),
        ("rbd://fsid/pool/image/snap", "no JSON", "ceph"),
        # Not told by the row: two stores have such URLs, or none has.
        ("file:///a/b", "{}", None),
        ("s3://key:secret@host/bucket/object", "{}", None),
        ("b9pGyw_an-encrypted-url", "{}", None),
        ("", "{}", None),
        ("file:///a/b", named("gone"), None),
        # Too long to be read; its beginning is no JSON.
        ("file:///a/b", json.dumps({"note": "x" * 1000, "store": "fast"}), None),
        ("rbd://fsid/pool/image/snap", json.dumps({"note": "x" * 1000}), "ceph"),
    ],
)
def test_store_is_told_by_the_row_alone(url: str, text: str | None, store: str | None) -> None:
    registry = Registry()
    registry.add("o", 5, HOURS, [(url, text)])
    assert registry.space() == dict.fromkeys(SCHEMES, 0) | {store: 5}


def test_only_pending_locations_of_deleted_images_count() -> None:
    registry = Registry()
    location = [("file:///a/b", named("fast"))]
    registry.add("claimed", 1, HOURS, location, status="deleted")
    registry.add("scrubbed", 20, HOURS, location, location_status="deleted", status="deleted")
    registry.add("partly scrubbed", 300, HOURS, location, location_status="deleted")
    registry.add("orphan", 4000, None, location, status="active", deleted=False)
    registry.add("live", 50000, None, location, location_status="active", deleted=False)
    assert registry.space()["fast"] == 1


@pytest.mark.costly
def test_metadata_of_all_kinds_is_summed_up_but_a_limited_number_is_read() -> None:
    """Users may give each location metadata of its own."""
    registry = Registry()
    for number in range(1100):
        text = json.dumps({"store": "fast", "note": number})
        registry.add("o", 10_000 + number, HOURS, [("file:///a/b", text)])
    stores = registry.space()
    assert stores["fast"] == sum(range(10_100, 11_100))
    assert stores[None] == sum(range(10_000, 10_100))


@pytest.mark.parametrize(
    ("count_seconds", "images_after", "bytes_after"),
    [(0.1, 30.0, 30.0), (2.0, 100.0, 200.0)],
)
def test_it_is_taken_rarely_and_the_more_so_the_longer_it_takes(
    count_seconds: float, images_after: float, bytes_after: float
) -> None:
    registry = Registry()
    registry.count_seconds = count_seconds
    anyio.run(registry.counter.refresh)
    assert registry.questions == 2
    registry.boot += images_after - count_seconds - 0.01
    anyio.run(registry.counter.refresh)
    assert registry.questions == 2
    registry.boot += count_seconds + 0.02
    registry.count_seconds = 0.0
    anyio.run(registry.counter.refresh)
    assert registry.questions == (4 if images_after == bytes_after else 3)
    registry.boot += bytes_after - images_after
    anyio.run(registry.counter.refresh)
    assert registry.questions == (4 if images_after == bytes_after else 5)


def test_a_row_that_cannot_be_decoded_keeps_the_latest_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = Registry()
    registry.add("o", 5, HOURS, [("rbd://fsid/pool/image/snap", "{}")])
    before = registry.count()

    def undecodable() -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr(registry.counter._images, "_count", undecodable)
    registry.boot += 31
    after = registry.count()
    assert (after.at, after.total) == (before.at, before.total)


@pytest.mark.parametrize(
    ("error", "level"),
    [(db_exception.DBConnectionError("away"), "DEBUG"), (LookupError("a row"), "WARNING")],
)
def test_a_count_that_fails_is_said_unless_the_registry_is_away(
    error: Exception,
    level: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "evscrub")
    registry = Registry()
    monkeypatch.setattr(registry.counter._images, "_count", Mock(side_effect=error))
    anyio.run(registry.counter.refresh)
    said = [r for r in caplog.records if r.getMessage().startswith("Cannot count")]
    assert [(r.levelname, type(error).__name__ in r.getMessage()) for r in said] == [(level, True)]


def test_images_are_counted_though_their_bytes_cannot_be() -> None:
    """The bytes of many images may take the database longer than a statement may last."""
    registry = Registry()
    registry.add("o", 5, HOURS, [("rbd://fsid/pool/image/snap", "{}")])
    assert registry.space()["ceph"] == 5
    with registry.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE image_locations RENAME meta_data TO away"))
        connection.execute(sa.text("UPDATE images SET size = 6"))
    registry.boot += 31
    assert registry.count().total == Pending(1, 6, 0)
    assert registry.space()["ceph"] == 5, "the latest that is known"
