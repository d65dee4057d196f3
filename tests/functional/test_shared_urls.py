# SPDX-License-Identifier: Apache-2.0
"""Locations added by another transaction while an agent looks for shared data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest
import sqlalchemy as sa

from evscrub.domain.clock import Clock
from evscrub.domain.decisions import LocationRow
from evscrub.registry.recent_ids import OVERLAP_SECONDS
from evscrub.registry.shared_urls import SharedUrls
from tests.chaos.rows import Rows, connect, utc_now
from tests.plain_objects import PlainObjects

#: SQLite shows no transaction beside another one.
pytestmark = pytest.mark.parametrize(
    "backend", ["mariadb", "postgresql"], indirect=True, scope="module"
)
URL = "s3://host/bucket/object"
WANTED = [LocationRow(10**9, URL, "fast", "pending_delete", True, None, None)]


class Times:
    """A clock set by a test."""

    def __init__(self) -> None:
        self.now = 0.0
        self.clock = Clock(lambda: self.now, lambda: self.now)


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def rows(registry_url: str) -> Iterator[Rows]:
    rows = Rows(registry_url)
    yield rows
    rows.engine.dispose()


@pytest.fixture
def shared(registry_url: str, times: Times) -> Iterator[SharedUrls]:
    database = connect(registry_url)
    yield SharedUrls(database, PlainObjects(), times.clock)
    database.dispose()


def insert(
    connection: sa.Connection, image_id: str, url: str, numbers: Sequence[int | None] = (None,)
) -> None:
    """Add live locations to an image, with the ids given."""
    now = utc_now()
    values = {"image_id": image_id, "value": url, "created_at": now, "deleted": False}
    values |= {"meta_data": "{}", "status": "active"}
    names = [*values, *(["id"] if numbers[0] is not None else [])]
    statement = f"INSERT INTO image_locations ({', '.join(names)}) VALUES (:{', :'.join(names)})"
    connection.execute(sa.text(statement), [values | {"id": number} for number in numbers])


@contextmanager
def uncommitted(rows: Rows, url: str) -> Iterator[Callable[[], None]]:
    """Add a live location in a separate transaction; yield a function that commits it."""
    image_id = rows.add(("fast", "file:///else"))
    with ExitStack() as stack:
        connection = stack.enter_context(rows.engine.connect())
        insert(connection, image_id, url)
        yield connection.commit


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("looked_before", [False, True])
def test_location_that_commits_late_is_seen(
    rows: Rows, shared: SharedUrls, times: Times, step: int, looked_before: bool
) -> None:
    if looked_before:
        assert set(shared.among(WANTED)) == set()
    with uncommitted(rows, URL) as commit:
        other = rows.add(("fast", "file:///other"))
        highest = rows.read("SELECT max(id) FROM image_locations")[0][0]
        for turn in range(4):
            numbers = [highest + (35 * turn + count) * step for count in range(1, 36)]
            with rows.engine.begin() as connection:
                insert(connection, other, "file:///x", numbers)
            times.now += OVERLAP_SECONDS / 5
            assert set(shared.among(WANTED)) == set()
        commit()
        assert set(shared.among(WANTED)) == {WANTED[0].id}


def test_location_that_commits_after_the_overlap_is_seen_by_the_next_full_read(
    rows: Rows, shared: SharedUrls, times: Times
) -> None:
    with uncommitted(rows, URL) as commit:
        rows.add(("fast", "file:///other"))
        for _ in range(4):
            assert set(shared.among(WANTED)) == set()
            times.now += OVERLAP_SECONDS
        commit()
        assert set(shared.among(WANTED)) == set()
        times.now += 3600
        assert set(shared.among(WANTED)) == {WANTED[0].id}


@pytest.mark.parametrize("calls", range(4))
def test_location_that_commits_while_the_index_is_renewed_is_seen(
    rows: Rows, shared: SharedUrls, times: Times, calls: int
) -> None:
    rows.add(("fast", "file:///older"))
    with rows.engine.begin() as connection:
        connection.execute(sa.text("UPDATE image_locations SET created_at = '2026-01-01'"))
    assert set(shared.among(WANTED)) == set()
    times.now = 2701.0
    with uncommitted(rows, URL) as commit:
        rows.add(("fast", "file:///later"))
        assert set(shared.among(WANTED)) == set()
        for _ in range(calls):
            shared.renew_page()
        assert set(shared.among(WANTED)) == set()
        commit()
        while shared.renew_page():
            assert set(shared.among(WANTED)) == {WANTED[0].id}
    assert not shared.is_old
    assert set(shared.among(WANTED)) == {WANTED[0].id}
    assert set(shared.among([WANTED[0]._replace(value="file:///older")])) == {WANTED[0].id}
