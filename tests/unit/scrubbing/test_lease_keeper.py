# SPDX-License-Identifier: Apache-2.0
"""Leases: renewed in time, and lost when the registry says so."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import cast

import anyio
import pytest

from evscrub.domain.clock import Clock
from evscrub.domain.decisions import ImageRow, Kind
from evscrub.queueing.delay_queue import Source
from evscrub.registry.calls import Registry, RegistryCalls
from evscrub.registry.claims import Claim, Claims
from evscrub.scrubbing.job import Work
from evscrub.scrubbing.lease_keeper import Leases
from evscrub.telemetry.statistics import Record

LEASE = datetime(2026, 1, 1)
TIMEOUT = 60.0


class Bench:
    """Two claims, and a registry that renews those that `kept` names."""

    def __init__(self, kept: set[str]) -> None:
        self.time = 1000.0
        self.clock = Clock(boot=lambda: self.time, wall=lambda: self.time)
        self.asked: list[str] = []
        self._kept = kept
        self.call_seconds = 0.0
        self.record = Record()
        registry = cast("Claims", SimpleNamespace(renew=self._renew))
        calls = RegistryCalls(self.clock, cast("Registry", registry))
        self.leases = Leases(registry, calls, self.clock, self.record, TIMEOUT)
        for image_id in ("one", "two"):
            image = ImageRow(image_id, None, 1, "deleted", True, LEASE)
            claim = Claim(image, Kind.PENDING, (), LEASE)
            self.leases.works[image_id] = Work(
                claim, LEASE, self.clock.moment(), self.time, Source.EVENT
            )

    def _renew(self, held: Iterable[tuple[Claim, datetime]]) -> tuple[list[Claim], datetime]:
        self.time += self.call_seconds
        claims = [claim for claim, _ in held]
        self.asked += [claim.image.id for claim in claims]
        return [c for c in claims if c.image.id in self._kept], LEASE + timedelta(seconds=30)

    def renew(self, after_seconds: float) -> None:
        self.time += after_seconds
        anyio.run(self.leases.renew)


def test_a_claim_that_is_not_renewed_is_lost() -> None:
    bench = Bench(kept={"one"})
    bench.renew(30)
    one, two = bench.leases.works.values()
    assert bench.leases.is_ours(one)
    assert one.lease == LEASE + timedelta(seconds=30)
    assert not bench.leases.is_ours(two)
    assert not bench.leases.has_time(two)
    assert two.lease == LEASE
    assert bench.record.leases_lost == 1
    bench.renew(30)
    assert bench.asked == ["one", "two", "one"]


def test_a_lost_claim_is_not_renewed_again() -> None:
    bench = Bench(kept={"one"})
    bench.renew(30)
    bench.renew(5)
    assert bench.asked == ["one", "two"]
    assert bench.record.leases_lost == 1


def test_a_renewed_claim_lasts_from_its_renewal() -> None:
    bench = Bench(kept={"one", "two"})
    bench.renew(30)
    bench.time += 35
    assert all(map(bench.leases.is_ours, bench.leases.works.values()))
    bench.time += 6
    assert not any(map(bench.leases.is_ours, bench.leases.works.values()))


@pytest.mark.parametrize(("seconds", "asked"), [(19, 0), (21, 2), (39, 2), (41, 0)])
def test_renewed_when_aged_and_not_when_another_agent_may_have_it(
    seconds: float, asked: int
) -> None:
    bench = Bench(kept={"one", "two"})
    bench.renew(seconds)
    assert len(bench.asked) == asked


def test_a_lease_ages_while_its_renewal_is_under_way() -> None:
    """It may have been written as soon as it was asked for."""
    bench = Bench(kept={"one", "two"})
    bench.call_seconds = 15.0
    bench.renew(30)
    bench.time += 26
    assert not any(map(bench.leases.is_ours, bench.leases.works.values()))


def test_statistics_tell_how_many_there_are_and_for_how_long() -> None:
    bench = Bench(kept=set())
    one, two = bench.leases.works.values()
    one.ready_at, two.ready_at, two.begun_at = 900.0, 950.0, 960.0
    told = bench.leases.statistics(1000.0)
    assert (told.claims, told.in_work, told.oldest_ready_at) == (2, 1, 900.0)
    assert (told.in_work_seconds, told.longest_seconds) == (40.0, 40.0)
    one.begun_at = 990.0
    assert (told.in_work, told.in_work_seconds) == (1, 40.0)
    later = bench.leases.statistics(1000.0)
    assert (later.in_work, later.in_work_seconds, later.longest_seconds) == (2, 50.0, 40.0)
    bench.leases.works.clear()
    none = bench.leases.statistics(1000.0)
    assert (none.claims, none.longest_seconds, none.oldest_ready_at) == (0, 0.0, None)
