# SPDX-License-Identifier: Apache-2.0
"""An agent whose database answers from a node with another time, in simulated time."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, Self

import anyio
import pytest

from evscrub.domain.clock import Clock, DatabaseClock, naive
from evscrub.domain.decisions import ImageRow, Kind, LocationRow, Policy
from evscrub.registry import claims as claims_module
from evscrub.registry.claims import Claim, Seen
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.status.service import Readiness
from tests.unit.world import EPOCH, World, fast


class NodeWorld(World):
    """A world whose registry is on a node with a clock that is off, for some time."""

    off_until = 200.0
    attempts = 0
    scrubber: Scrubber

    def _node(self) -> datetime:
        now = anyio.current_time()
        return naive(now + 15.0 if now < self.off_until else now)

    def claim(self, image_ids: Collection[str], policy: Policy) -> Seen:
        self.attempts += 1
        scrubber = self.scrubber
        asked = scrubber._context.database_clock.moment()
        now = self._node()
        if not scrubber._context.database_clock.agrees(now, asked):
            return Seen(now, {}, refused=True)
        seen = super().claim(image_ids, policy)
        return Seen(now, seen.sights, seen.claims)


@pytest.mark.costly
def test_nothing_is_claimed_on_a_node_that_is_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = NodeWorld(a=fast)
    for _ in range(1000):
        world.add("owner", "a")
    lacking: list[list[str]] = []

    async def watch(scrubber: Scrubber) -> None:
        world.scrubber = scrubber
        clock = scrubber._context.database_clock
        clock._is_known = True  # as where several nodes are known

        def statistics() -> Any:
            return SimpleNamespace(
                scrubber=scrubber.statistics(),
                sweep=SimpleNamespace(count=1),
                database_clock=clock.statistics(),
            )

        readiness = Readiness(None, statistics)  # type: ignore[arg-type] # not asked
        readiness._registry_answers = _yes  # type: ignore[method-assign] # answers
        await anyio.sleep(100)
        lacking.append(await readiness.what_lacks())
        await anyio.sleep(200)
        lacking.append(await readiness.what_lacks())

    world.run(until=400, meanwhile=watch)
    assert len(world.asked) == 1000
    assert min(asked.at for asked in world.asked) >= world.off_until
    assert "15.0 s ahead of" in lacking[0][0]
    assert lacking[1] == []
    told = [record.getMessage() for record in caplog.records if "claimed" in record.getMessage()]
    assert 3 <= len([text for text in told if text.startswith("Nothing is claimed")]) <= 4
    assert told[-1].startswith("The database's clock agrees")
    # Not one transaction after another.
    assert world.attempts < 250 + 1000


async def _yes() -> bool:
    return True


class FakeConnection:
    """Runs no statement."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, statement: object) -> Self:
        return self


def test_a_renewal_on_a_node_that_is_behind_is_no_older_than_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(lambda: 1000.0, lambda: 1000.0)
    database = type("Fake", (), {"transaction": lambda _: FakeConnection()})()
    claims = claims_module.Claims(database, DatabaseClock(clock))
    location = LocationRow(1, "file:///a", "fast", "pending_delete", False, None, EPOCH)
    image = ImageRow("a", "owner", 1, "deleted", True, EPOCH, EPOCH)
    claim = Claim(image, Kind.PENDING, (location,), EPOCH)
    monkeypatch.setattr(claims_module, "read_now", lambda _: EPOCH + timedelta(seconds=985))
    monkeypatch.setattr(claims_module, "lock_leases", lambda *_: ({1: EPOCH}, set()))
    monkeypatch.setattr(claims_module, "lock_images", lambda *_: ({"a"}, set()))
    assert claims.renew([(claim, EPOCH)]).lease == EPOCH + timedelta(seconds=1000)
