# SPDX-License-Identifier: Apache-2.0
"""Which locations share their URL with a live one, on a registry in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.pool import StaticPool

from evscrub.registry.shared_urls import SharedUrls
from evscrub.registry.tables import image_locations, metadata
from evscrub.rules import LocationRow
from evscrub.verdict import UNDECIPHERABLE, StoreNotUsableError


class Registry:
    """Live locations, whose URLs are "encrypted" by a number behind them.

    Each statement takes so many seconds of the clock that this is.
    """

    def __init__(self) -> None:
        self.engine = sa.create_engine("sqlite://", poolclass=StaticPool)
        metadata.create_all(self.engine)
        self.decrypted: list[str] = []
        self.now = 0.0
        self.statement_seconds = 1.0
        sa.event.listen(self.engine, "before_cursor_execute", self._takes_time)

    def _takes_time(self, *_: object) -> None:
        self.now += self.statement_seconds

    def moment(self) -> float:
        return self.now

    def since(self, moment: float) -> float:
        return self.now - moment

    def add(self, value: str, *, number: int | None = None, deleted: bool = False) -> int:
        row = {"image_id": "i", "value": value, "meta_data": "{}", "status": "active"}
        insert = sa.insert(image_locations).values(**row, id=number, deleted=deleted)
        with self.engine.begin() as connection:
            key = connection.execute(insert).inserted_primary_key
        assert key is not None
        return int(key[0])

    def set(self, number: int, **values: object) -> None:
        with self.engine.begin() as connection:
            where = image_locations.c.id == number
            connection.execute(sa.update(image_locations).where(where).values(**values))

    def clear(self, row: LocationRow) -> str:
        self.decrypted.append(row.value)
        if row.value.startswith("?"):
            raise StoreNotUsableError(UNDECIPHERABLE, "hint")
        return row.value.partition("#")[0]

    def shared(self, *, encrypted: bool) -> SharedUrls:
        database: Any = SimpleNamespace(reading=self.engine.begin)
        clock: Any = self
        return SharedUrls(database, self.clear, clock, encrypted=encrypted)


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
    rows = [row(11, "file:///a"), row(12, "file:///b#2"), row(13, "file:///A"), row(14, "c")]
    shared = registry.shared(encrypted=encrypted)
    sharing = {11, 12} if encrypted else {11}
    # Unless all are encrypted, what stands in the row is the URL.
    if not encrypted:
        rows[1] = row(12, "file:///b")
    assert shared.among(rows) == sharing
    assert shared.among([*rows, row(15, "?"), row(16, "file:///a")]) == sharing | {16}
    assert shared.among([row(17, "?")]) == set()


def test_decrypts_a_live_location_once(registry: Registry) -> None:
    shared = registry.shared(encrypted=True)
    wanted = [row(11, "file:///c")]
    assert shared.among(wanted) == set()
    registry.decrypted.clear()
    registry.add("file:///new#1")
    registry.now += 1000
    assert shared.among(wanted) == set()
    registry.decrypted.remove("file:///c")
    assert registry.decrypted == ["file:///new#1"]


@pytest.mark.parametrize("encrypted", [False, True])
def test_sees_what_was_changed_in_its_place(registry: Registry, encrypted: bool) -> None:
    shared = registry.shared(encrypted=encrypted)
    assert shared.among([row(11, "file:///c")]) == set()
    registry.set(2, value="file:///c" + "#3" * encrypted)
    registry.now += 1000
    assert shared.among([row(11, "file:///c")]) == {11}
    assert shared.among([row(11, "file:///b")]) == set()


def test_of_several_that_share_one_is_enough(registry: Registry) -> None:
    shared = registry.shared(encrypted=False)
    others = [registry.add("file:///a") for _ in range(3)]
    wanted = [row(11, "file:///a")]
    for number in (1, *others):
        assert shared.among(wanted) == {11}
        registry.set(number, deleted=True)
    assert shared.among(wanted) == set()


def test_reads_all_anew_only_now_and_then(registry: Registry) -> None:
    restored = registry.add("file:///r", deleted=True)
    for number in range(200):
        registry.add(f"file:///{number}", deleted=True)
    shared = registry.shared(encrypted=False)
    wanted = [row(999, "file:///r")]
    began = registry.now
    assert shared.among(wanted) == set()
    registry.set(restored, deleted=False)
    assert shared.among(wanted) == set()
    # Two statements took two seconds.
    registry.now = began + 20 * 2
    assert shared.among(wanted) == set()
    registry.now += 1
    assert shared.among(wanted) == {999}


def test_does_not_rest_for_long(registry: Registry) -> None:
    restored = registry.add("file:///r", deleted=True)
    registry.add("file:///high", number=500)
    shared = registry.shared(encrypted=False)
    wanted = [row(999, "file:///r")]
    registry.statement_seconds = 100_000
    assert shared.among(wanted) == set()
    registry.statement_seconds = 0
    registry.set(restored, deleted=False)
    registry.now += 301
    assert shared.among(wanted) == {999}


def test_sees_what_got_its_id_earlier_and_came_later(registry: Registry) -> None:
    registry.add("file:///high", number=500)
    shared = registry.shared(encrypted=False)
    wanted = [row(999, "file:///late")]
    assert shared.among(wanted) == set()
    registry.add("file:///late", number=450)
    assert shared.among(wanted) == {999}


_URLS = st.sampled_from(["file:///a", "file:///b", "file:///c"])
_STEPS = st.lists(
    st.tuples(st.just("add"), _URLS)
    | st.tuples(st.just("delete"), st.integers(0, 9))
    | st.tuples(st.just("ask"), _URLS),
    max_size=30,
)


@given(_STEPS, st.booleans())
def test_what_comes_and_goes_is_seen_at_once(steps: list[tuple[str, Any]], encrypted: bool) -> None:
    registry = Registry()
    shared = registry.shared(encrypted=encrypted)
    live: dict[int, str] = {}
    for verb, value in steps:
        if verb == "add":
            live[registry.add(value + f"#{len(live)}" * encrypted)] = value
        elif verb == "delete" and live:
            number = sorted(live)[value % len(live)]
            del live[number]
            registry.set(number, deleted=True)
        elif verb == "ask":
            expected = {999} if value in live.values() else set()
            assert shared.among([row(999, value)]) == expected
