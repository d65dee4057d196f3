# SPDX-License-Identifier: Apache-2.0
"""Settlements of images whose rows another transaction has locked, in simulated time."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta

import anyio
import pytest
from oslo_db import exception as db_exception

from evscrub.registry.claims import Settlement
from evscrub.scrubbing.put_off import PutOff
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.scrubbing.statistics import ScrubberStatistics
from tests.unit.world import SETTINGS, World, fast, new_job

TEXT = "another transaction has locked"


class LockedWorld(World):
    """A world in which the rows of some images are locked for some time after their delete.

    :ivar until: by image id, seconds.
    :ivar away_until: seconds until which the registry is away, from the first second on.
    :ivar asked_for: when the settlement of a locked image was tried.
    """

    away_until = 0.0

    def lock(self, *image_ids: str, until: float = math.inf) -> None:
        self.until = dict.fromkeys(image_ids, until)
        self.asked_for: list[float] = []
        self.settled: list[str] = []

    def settle(
        self, settlements: Sequence[Settlement], claim_timeout: timedelta
    ) -> Collection[str]:
        now = anyio.current_time()
        if 1 < now < self.away_until:
            raise db_exception.DBConnectionError
        locked = {end.image_id for end in settlements if now < self.until.get(end.image_id, 0)}
        if locked:
            self.asked_for.append(now)
        free = [end for end in settlements if end.image_id not in locked]
        self.settled += [end.image_id for end in free]
        super().settle(free, claim_timeout)
        return locked


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if TEXT in record.getMessage()]


@pytest.mark.parametrize("away_until", [0.0, 3.0])
def test_each_image_is_settled_once(caplog: pytest.LogCaptureFixture, away_until: float) -> None:
    world = LockedWorld(a=fast)
    world.away_until = away_until
    images = [world.add("o", "a") for _ in range(400)]
    world.lock(*images[::2], until=5)
    world.run(60)
    assert sorted(world.settled) == images
    assert set(world.settled[:200]) == set(images[1::2])
    # Each first try, and one a second.
    assert len(world.asked_for) < 20
    assert logged(caplog) == []


def test_long_lock_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    world = LockedWorld(a=fast)
    images = [world.add("o", "a") for _ in range(3)]
    world.lock(*images[:2], until=200)
    world.run(240, idle=True)
    first, *more = logged(caplog)
    assert len(more) == 2
    assert first.startswith(f"2 images cannot be settled, since {TEXT} their rows, for 3")
    assert images[0] in first or images[1] in first
    assert 195 < len(world.asked_for) < 205
    assert sorted(world.settled) == images


def test_locked_rows_hold_up_no_other_image() -> None:
    """Nor does the agent take its registry for one that is not accepting settlements."""
    world = LockedWorld(replace(SETTINGS, batch_size=10), a=fast)
    images = [world.add("o", "a") for _ in range(500)]
    world.lock(*images[:100])
    found: list[ScrubberStatistics] = []

    async def watch(scrubber: Scrubber) -> None:
        await anyio.sleep(9)
        found.append(scrubber.statistics())

    world.run(10, watch)
    assert sorted(world.settled) == images[100:]
    (statistics,) = found
    assert (statistics.unsettled, statistics.put_off) == (100, 100)


def test_tries_are_a_second_apart() -> None:
    put_off, one, two = PutOff(), new_job("one"), new_job("two")
    put_off.sort([one], {"one"}, 10.0)
    assert (put_off.due(10.9), put_off.due(11.0)) == ([], [one])
    put_off.sort([two], {"two"}, 10.5)  # does not postpone the first one's
    assert put_off.due(11.0) == [one, two]
    put_off.sort([one, two], {"two"}, 11.0)
    assert (put_off.due(11.9), put_off.due(12.0)) == ([], [two])
    put_off.sort([two], (), 12.0)
    assert put_off.due(99.0) == []
    assert (len(put_off), put_off.due_at) == (0, math.inf)


def test_stop_waits_for_rows_that_are_locked_for_a_moment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The claim of another agent looks at the image."""
    world = LockedWorld(a=fast)
    image_id = world.add("o", "a")
    world.lock(image_id, until=2)
    world.run(0.5, drain=30)
    assert world.settled == [image_id]
    assert "drain_timeout" not in caplog.text


def test_stop_does_not_wait_for_locked_rows(caplog: pytest.LogCaptureFixture) -> None:
    world = LockedWorld(a=fast)
    world.lock(world.add("o", "a"))
    world.run(10, drain=30)
    assert world.asked_for[-1] < 12
    assert "1 image was not settled within drain_timeout" in caplog.text
