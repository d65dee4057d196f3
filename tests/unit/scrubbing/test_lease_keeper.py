# SPDX-License-Identifier: Apache-2.0
"""Leases: renewed in time, and lost if the registry says so."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import cast

import anyio
import pytest

from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.domain.decisions import ImageRow, Kind
from evscrub.queueing.delay_queue import Source
from evscrub.registry.claims import Claim, Claims, Renewal
from evscrub.registry.gateway import Registry, RegistryGateway
from evscrub.scrubbing.context import Context
from evscrub.scrubbing.job import Job, Lease
from evscrub.scrubbing.lease_keeper import LeaseKeeper
from tests.unit.world import SETTINGS

LEASE = datetime(2026, 1, 1)
TIMEOUT = 60.0


class Bench:
    """Two claims, and a registry that renews those that `kept` names."""

    def __init__(self, kept: set[str], locked: Collection[str] = ()) -> None:
        self.time = 1000.0
        self.clock = Clock(boot=lambda: self.time, wall=lambda: self.time)
        self.asked: list[str] = []
        self._kept = kept
        self._locked = locked
        self.call_seconds = 0.0
        registry = cast("Claims", SimpleNamespace(renew=self._renew))
        calls = RegistryGateway(self.clock, cast("Registry", registry))
        policy = replace(SETTINGS.policy, claim_timeout=timedelta(seconds=TIMEOUT))
        settings = replace(SETTINGS, policy=policy)
        context = Context(settings, DatabaseClock(self.clock), calls)
        self.record = context.record
        self.leases = LeaseKeeper(registry, context)
        for image_id in ("one", "two"):
            image = ImageRow(image_id, None, 1, "deleted", True, LEASE)
            claim = Claim(image, Kind.PENDING, (), LEASE)
            lease = Lease(LEASE, self.clock.moment())
            self.leases.add(Job(claim, lease, self.time, Source.EVENT))

    def _renew(self, held: Collection[tuple[Claim, datetime]]) -> Renewal:
        self.time += self.call_seconds
        self.asked += [claim.image.id for claim, _ in held]
        kept = [claim.image.id for claim, _ in held if claim.image.id in self._kept]
        return Renewal(LEASE + timedelta(seconds=30), kept, self._locked)

    def renew(self, after_seconds: float) -> None:
        self.time += after_seconds
        anyio.run(self.leases.renew)


def test_claim_that_is_not_renewed_is_lost() -> None:
    bench = Bench(kept={"one"})
    bench.renew(30)
    one, two = bench.leases.jobs
    assert bench.leases.is_ours(one)
    assert one.lease.stamp == LEASE + timedelta(seconds=30)
    assert not bench.leases.is_ours(two)
    assert not bench.leases.has_time(two)
    assert two.lease.stamp == LEASE
    assert bench.record.leases_lost == 1
    bench.renew(30)
    assert bench.asked == ["one", "two", "one"]


def test_lost_claim_is_not_renewed() -> None:
    bench = Bench(kept={"one"})
    bench.renew(30)
    bench.renew(5)
    assert bench.asked == ["one", "two"]
    assert bench.record.leases_lost == 1


def test_lease_age_restarts_at_its_renewal() -> None:
    bench = Bench(kept={"one", "two"})
    bench.renew(30)
    bench.time += 35
    assert all(map(bench.leases.is_ours, bench.leases.jobs))
    bench.time += 6
    assert not any(map(bench.leases.is_ours, bench.leases.jobs))


def test_lease_age_restarts_even_if_the_stamp_stays() -> None:
    """The database's clock was behind the first lease."""
    bench = Bench(kept={"one", "two"})
    for job in bench.leases.jobs:
        job.lease.stamp = LEASE + timedelta(seconds=30)
    bench.renew(30)
    bench.time += 35
    assert all(map(bench.leases.is_ours, bench.leases.jobs))


def test_lease_of_locked_rows_is_neither_lost_nor_younger() -> None:
    bench = Bench(kept={"two"}, locked={"one"})
    bench.renew(30)
    one, two = bench.leases.jobs
    assert one.lease.stamp == LEASE
    bench.time += 9
    assert bench.leases.is_ours(one)
    bench.time += 2
    assert not bench.leases.is_ours(one)
    assert bench.leases.is_ours(two)


@pytest.mark.parametrize(("seconds", "asked"), [(19, 0), (21, 2), (39, 2), (41, 0)])
def test_only_aging_leases_are_renewed(seconds: float, asked: int) -> None:
    bench = Bench(kept={"one", "two"})
    bench.renew(seconds)
    assert len(bench.asked) == asked


def test_lease_age_starts_before_the_renewal_query() -> None:
    """The lease may be stamped right after the request."""
    bench = Bench(kept={"one", "two"})
    bench.call_seconds = 15.0
    bench.renew(30)
    bench.time += 26
    assert not any(map(bench.leases.is_ours, bench.leases.jobs))


def test_statistics_report_number_and_age() -> None:
    bench = Bench(kept=set())
    one, two = bench.leases.jobs
    one.ready_at, two.ready_at, two.begun_at = 900.0, 950.0, 960.0
    told = bench.leases.statistics(1000.0)
    assert (told.claims, told.in_work, told.oldest_ready_at) == (2, 1, 900.0)
    assert (told.in_work_seconds, told.longest_seconds) == (40.0, 40.0)
    one.begun_at = 990.0
    assert (told.in_work, told.in_work_seconds) == (1, 40.0)
    later = bench.leases.statistics(1000.0)
    assert (later.in_work, later.in_work_seconds, later.longest_seconds) == (2, 50.0, 40.0)
    bench.leases.remove(one)
    bench.leases.remove(two)
    none = bench.leases.statistics(1000.0)
    assert (none.claims, none.longest_seconds, none.oldest_ready_at) == (0, 0.0, None)
