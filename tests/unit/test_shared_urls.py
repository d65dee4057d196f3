# SPDX-License-Identifier: Apache-2.0
"""Which locations share their URL with a live one, on a registry in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from evscrub.registry.shared_urls import SharedUrls
from evscrub.registry.tables import image_locations, metadata
from evscrub.rules import LocationRow
from evscrub.verdict import UNDECIPHERABLE, StoreNotUsableError


class Registry:
    """Live locations, whose URLs are "encrypted" by a number behind them."""

    def __init__(self) -> None:
        self.engine = sa.create_engine("sqlite://", poolclass=StaticPool)
        metadata.create_all(self.engine)
        self.decrypted: list[str] = []

    def add(self, value: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                sa.insert(image_locations).values(
                    image_id="i", value=value, meta_data="{}", status="active", deleted=False
                )
            )

    def change(self, old: str, new: str) -> None:
        with self.engine.begin() as connection:
            where = image_locations.c.value == old
            connection.execute(sa.update(image_locations).where(where).values(value=new))

    def clear(self, row: LocationRow) -> str:
        self.decrypted.append(row.value)
        if row.value.startswith("?"):
            raise StoreNotUsableError(UNDECIPHERABLE, "hint")
        return row.value.partition("#")[0]

    def shared(self, *, encrypted: bool) -> SharedUrls:
        database: Any = SimpleNamespace(reading=self.engine.begin)
        return SharedUrls(database, self.clear, encrypted=encrypted)


def row(number: int, value: str) -> LocationRow:
    return LocationRow(number, value, "s", "pending_delete", True, None, None)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    for value in ("file:///a", "file:///b#1", "?"):
        registry.add(value)
    return registry


@pytest.mark.parametrize("encrypted", [False, True])
def test_finds_those_that_share(registry: Registry, encrypted: bool) -> None:
    rows = [row(1, "file:///a"), row(2, "file:///b#2"), row(3, "file:///A"), row(4, "file:///c")]
    shared = registry.shared(encrypted=encrypted)
    assert shared.among(rows) == ({1, 2} if encrypted else {1})
    assert shared.among([*rows, row(5, "?"), row(6, "file:///a")]) == (
        {1, 2, 6} if encrypted else {1, 6}
    )
    assert shared.among([row(7, "?")]) == set()


def test_decrypts_a_live_location_once(registry: Registry) -> None:
    shared = registry.shared(encrypted=True)
    wanted = [row(1, "file:///a")]
    assert shared.among(wanted) == {1}
    registry.decrypted.clear()
    registry.add("file:///new#1")
    assert shared.among(wanted) == {1}
    assert registry.decrypted == ["file:///a", "file:///new#1"]


def test_sees_what_was_changed_in_its_place(registry: Registry) -> None:
    shared = registry.shared(encrypted=True)
    assert shared.among([row(1, "file:///c#9")]) == set()
    registry.change("file:///b#1", "file:///c#3")
    assert shared.among([row(1, "file:///c#9")]) == {1}
    assert shared.among([row(1, "file:///b")]) == set()
