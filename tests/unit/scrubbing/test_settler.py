# SPDX-License-Identifier: Apache-2.0
"""Settlement: what is written, counted and logged."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest
from oslo_db import exception as db_exception

from evscrub.domain.clock import Clock, DatabaseClock, Moment, epoch
from evscrub.domain.decisions import ImageRow, Kind, LocationRow
from evscrub.domain.hold_rules import RELEASED_AFTER
from evscrub.domain.retry_policy import Delays
from evscrub.domain.verdict import GONE, LINKED, NOT_FOUND, SHARED, Outcome, Verdict
from evscrub.queueing.delay_queue import DelayQueue, Source
from evscrub.registry.claims import Claim, Renewal, Settlement
from evscrub.registry.gateway import RETRY_SECONDS, RegistryGateway
from evscrub.scrubbing.context import Context, Observers
from evscrub.scrubbing.job import Job, Lease, Location
from evscrub.scrubbing.lease_keeper import LeaseKeeper
from evscrub.scrubbing.settler import _GATHER_SECONDS, Settler
from evscrub.telemetry.statistics import Record, Scrubbed
from tests.unit.simulated_loop import run
from tests.unit.world import REGISTRY_SECONDS, SETTINGS, simulated_threads

AT = datetime(2026, 3, 1, 12)
NOW = epoch(AT) + 3600
DELAYS = Delays(initial=5, longest=600, in_use=1800, parked=3600)
NOT_OURS = Verdict(Outcome.NOT_OURS, "read_only_store", "StoreDeleteNotSupported")
TIMEOUT = Verdict(Outcome.TRANSIENT, "timeout")
IN_USE = Verdict(Outcome.IN_USE, "in_use")


def location(number: int, deleted_at: datetime = AT) -> LocationRow:
    return LocationRow(number, "file:///x", "fast", "pending_delete", True, deleted_at, AT)


def ended(
    image_id: str,
    *verdicts: Verdict,
    kind: Kind = Kind.PENDING,
    source: Source = Source.EVENT,
    deleted_at: datetime = AT,
    locations_at: datetime = AT,
) -> Job:
    """Return the job of an image with a location for each verdict."""
    rows = tuple(location(number, locations_at) for number, _ in enumerate(verdicts or (None,)))
    image = ImageRow(image_id, "owner", 1000, "deleted", True, deleted_at)
    job = Job(Claim(image, kind, rows, AT), Lease(AT, Moment(0, 0)), NOW, source)
    for row in rows if verdicts else ():
        job.locations.append(Location(row))
    for each, verdict in zip(job.locations, verdicts, strict=False):
        job.judge(each, each.row.store or "", verdict, NOW + 2)
    return job


class Registry:
    """Accepts every settlement."""

    def settle(
        self, settlements: Sequence[Settlement], _claim_timeout: timedelta
    ) -> Collection[str]:
        return ()


def settle(
    *jobs: Job,
    capacity: int = 100,
    meanwhile: Callable[[DelayQueue], Any] = lambda _: None,
    at_work: Callable[[DelayQueue], Any] = lambda _: None,
    registry: Registry | None = None,
    beside: Callable[[LeaseKeeper], Coroutine[Any, Any, None]] | None = None,
    seconds: float = 1,
) -> tuple[Record, list[Scrubbed]]:
    """Settle jobs; returns the record, and what the observers received.

    The bus is joined since an hour before the images were deleted.

    :param meanwhile: called before the images are taken.
    :param at_work: called when they are taken.
    :param beside: runs while they are settled.
    :param seconds: how long settling goes on.
    """
    record = Record()
    policy = replace(SETTINGS.policy, claim_timeout=timedelta(seconds=60))
    settings = replace(SETTINGS, policy=policy, delays=DELAYS)
    told: list[Scrubbed] = []

    async def main() -> None:
        clock = Clock(anyio.current_time, lambda: NOW + anyio.current_time())
        queue = DelayQueue(capacity, origin=NOW)
        claims, database_clock = registry or Registry(), DatabaseClock(clock)
        calls = RegistryGateway(clock, claims)  # type: ignore[arg-type] # a stand-in
        context = Context(settings, database_clock, calls, record)
        leases = LeaseKeeper(claims, context)  # type: ignore[arg-type] # a stand-in
        observers = Observers(told.append)
        settler = Settler(queue, claims, leases, observers, context)  # type: ignore[arg-type] # a stand-in
        settler.bus_since = NOW - 7200
        meanwhile(queue)
        for job in jobs:
            queue.add(job.image_id, NOW - 1, lane="fast")
        queue.advance(NOW)
        queue.take("fast", len(jobs))
        for job in jobs:
            leases.add(job)
        at_work(queue)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(settler.run)
            for job in jobs:
                settler.add(job)
            if beside is not None:
                tasks.start_soon(beside, leases)
            await anyio.sleep(seconds)
            tasks.cancel_scope.cancel()

    with simulated_threads():
        run(main)
    return record, told


def test_deleted_data_is_counted_once_settled() -> None:
    record, told = settle(ended("a", GONE, GONE), ended("b", NOT_FOUND), ended("c", TIMEOUT, GONE))
    assert record.outcomes == {
        ("fast", "gone", "deleted"): 3,
        ("fast", "gone", "not_found"): 1,
        ("fast", "transient", "timeout"): 1,
    }
    assert record.bytes_reclaimed == {"fast": 3000}
    assert record.scrubbed == 2
    assert [image.image_id for image in told] == ["a", "b"]
    assert list(record.late_seconds) == [2, 2]


def test_missing_data_is_logged_once_with_store_and_time(caplog: pytest.LogCaptureFixture) -> None:
    settle(ended("a", GONE), ended("b", NOT_FOUND), ended("c", NOT_FOUND, kind=Kind.EXPIRED))
    (line,) = [record.getMessage() for record in caplog.records if "no data" in record.getMessage()]
    assert line.startswith("Store fast had no data of 1 scrubbed image: ")
    assert re.search(r"lost: b \(deleted \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\)$", line)


@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [
        ([], "no_location"),
        ([SHARED], "shared_url"),
        ([NOT_OURS], "read_only_store"),
    ],
)
def test_image_with_kept_data_is_finished_and_not_scrubbed(
    verdicts: list[Verdict], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    record, told = settle(ended("a", *verdicts))
    assert (record.scrubbed, record.finished) == (0, {reason: 1})
    assert record.bytes_reclaimed.total() == 0
    assert list(record.late_seconds) == []
    assert [image.data_went for image in told] == [False]
    assert f"Finished 1 image without a delete ({reason.replace('_', ' ')}): a" in caplog.text
    assert "Scrubbed" not in caplog.text


def missed(job: Job, **fields: Any) -> int:
    return settle(job, **fields)[0].missed_by_bus


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (LINKED, f"(linked): {LINKED.hint}; next try"),
        (Verdict(Outcome.IN_USE, "in_use", "InUseByStore"), "(in use): InUseByStore; next try"),
        (Verdict(Outcome.IN_USE, "in_use"), "(in use): next try"),
    ],
)
def test_log_names_what_keeps_an_image_in_use(
    verdict: Verdict, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settle(ended("linked", verdict))
    assert f"Image linked is not scrubbed from store fast {said}" in caplog.text


def test_image_found_by_a_sweep_was_missed_by_the_bus() -> None:
    assert missed(ended("a", GONE, source=Source.SWEEP)) == 1
    assert missed(ended("a", GONE, source=Source.EVENT)) == 0


@pytest.mark.parametrize("kind", [Kind.EXPIRED, Kind.HANDED_BACK, Kind.ORPHAN])
def test_image_without_notification_was_not_missed(kind: Kind) -> None:
    assert missed(ended("a", GONE, source=Source.SWEEP, kind=kind)) == 0


def test_image_deleted_before_the_bus_was_joined_was_not_missed() -> None:
    long_ago = AT - timedelta(hours=2)
    assert missed(ended("a", GONE, source=Source.SWEEP, deleted_at=long_ago)) == 0


def test_released_hold_was_not_missed() -> None:
    job = ended("a", GONE, source=Source.SWEEP, locations_at=AT + RELEASED_AFTER)
    assert missed(job) == 0


def test_image_dropped_by_the_queue_was_not_missed() -> None:
    def fill(queue: DelayQueue) -> None:
        for number in range(4):
            queue.add(f"other {number}", NOW + 100 + number)

    assert missed(ended("a", GONE, source=Source.SWEEP), capacity=3, meanwhile=fill) == 0


class ComparingRegistry(Registry):
    """Renews and releases a claim only with the lease that it has."""

    def __init__(self, *refused: str) -> None:
        self.lease = AT
        self.released: list[str] = []
        self.refused = refused

    def renew(self, held: Collection[tuple[Claim, datetime]]) -> Renewal:
        kept = [claim for claim, lease in held if lease == self.lease and not self.released]
        if kept:
            self.lease += timedelta(seconds=30)
        return Renewal(self.lease, [claim.image.id for claim in kept], [])

    def settle(
        self, settlements: Sequence[Settlement], _claim_timeout: timedelta
    ) -> Collection[str]:
        for end in settlements:
            if end.image_id in self.refused:
                raise KeyError(end.image_id)
            if end.lease == self.lease:
                self.released.append(end.image_id)
        return ()


@pytest.mark.parametrize("after", [-REGISTRY_SECONDS / 2, REGISTRY_SECONDS / 2])
def test_lease_is_not_renewed_while_its_claim_is_released(after: float) -> None:
    """Whichever call starts first: a comparison with an outdated lease would lose the claim."""
    registry = ComparingRegistry()
    job = ended("a", TIMEOUT)
    job.lease.asked = Moment(-30, NOW - 30)  # old enough to be renewed

    async def renew(leases: LeaseKeeper) -> None:
        await anyio.sleep(_GATHER_SECONDS + after)
        await leases.renew()

    record, _ = settle(job, registry=registry, beside=renew)
    assert registry.released == ["a"]
    assert record.leases_lost == 0
    assert (registry.lease > AT) is (after < 0)


@pytest.mark.parametrize(
    ("verdicts", "refused", "kept"),
    [
        pytest.param([IN_USE], [], False, id="tried again later"),
        pytest.param([GONE], ["a"], False, id="parked"),
        pytest.param([GONE], [], True, id="scrubbed"),
    ],
)
def test_later_event_does_not_shorten_the_retry(
    verdicts: list[Verdict], refused: list[str], kept: bool
) -> None:
    queues: list[DelayQueue] = []

    def announce(queue: DelayQueue) -> None:
        queue.add("a", NOW, lane="fast")
        queues.append(queue)

    settle(ended("a", *verdicts), registry=ComparingRegistry(*refused), at_work=announce)
    (queue,) = queues
    queue.advance(NOW + 2)
    # One that is scrubbed is looked at again: the event may tell of something new.
    assert queue.statistics().ready == (1 if kept else 0)
    assert queue.statistics().waiting == (0 if kept else 1)


class AwayRegistry(Registry):
    """Accepts only the third settlement."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def settle(
        self, settlements: Sequence[Settlement], _claim_timeout: timedelta
    ) -> Collection[str]:
        self.asked.append([end.image_id for end in settlements])
        if len(self.asked) < 3:
            raise db_exception.DBConnectionError
        return ()


def test_deletions_are_recorded_once_the_registry_is_back() -> None:
    registry = AwayRegistry()
    jobs = [ended("a", GONE), ended("b", TIMEOUT)]
    record, told = settle(*jobs, registry=registry, seconds=3 * RETRY_SECONDS)
    assert registry.asked == [["a", "b"]] * 3
    assert [image.image_id for image in told] == ["a"]
    assert (record.scrubbed, record.retries) == (1, 1)
