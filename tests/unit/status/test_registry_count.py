# SPDX-License-Identifier: Apache-2.0
"""The registry's own count: what is in it, and how often it is taken."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from evscrub.domain.clock import Clock
from evscrub.registry.database import read_now
from evscrub.registry.tables import images, metadata
from evscrub.status.registry_count import Pending, RegistryCounter


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
        self.counter = RegistryCounter(database, clock, lambda: timedelta(hours=1))

    def _reading(self) -> Any:
        self.questions += 1
        self.boot += self.count_seconds
        return self.engine.begin()

    def add(self, owner: str | None, size: int, ago: timedelta | None, **values: Any) -> None:
        """Add a deleted image; None for one that is held."""
        with self.engine.begin() as connection:
            deleted_at = None if ago is None else read_now(connection) - ago
            state = {"status": "pending_delete", "deleted": True} | values
            connection.execute(
                sa.insert(images).values(
                    id=f"{owner}-{size}", owner=owner, size=size, deleted_at=deleted_at, **state
                )
            )


def test_all_that_is_pending_is_counted_by_owner() -> None:
    registry = Registry()
    hours = timedelta(hours=1)
    registry.add("one", 10, 0.5 * hours)
    registry.add("one", 20, 2 * hours)
    registry.add("two", 90, None)
    registry.add(None, 5, 3 * hours)
    registry.add("three", 1000, 2 * hours, status="deleted")
    registry.add("three", 2000, None, status="active", deleted=False)
    anyio.run(registry.counter.refresh)
    count = registry.counter.latest
    assert count is not None
    assert (count.at, count.later) == (1000.0, 1)
    assert count.total == Pending(4, 125, 1)
    assert count.owners == (
        ("two", Pending(1, 90, 1)),
        ("one", Pending(2, 30, 0)),
        (None, Pending(1, 5, 0)),
    )


@pytest.mark.parametrize(("count_seconds", "again_after"), [(0.1, 30.0), (2.0, 100.0)])
def test_it_is_taken_rarely_and_the_more_so_the_longer_it_takes(
    count_seconds: float, again_after: float
) -> None:
    registry = Registry()
    registry.count_seconds = count_seconds
    anyio.run(registry.counter.refresh)
    registry.boot += again_after - 0.01
    anyio.run(registry.counter.refresh)
    assert registry.questions == 1
    registry.boot += 0.02
    anyio.run(registry.counter.refresh)
    assert registry.questions == 2
