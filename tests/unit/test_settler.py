# SPDX-License-Identifier: Apache-2.0
"""What is counted when claims are settled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest

from evscrub.clock import Clock, DatabaseClock, Moment, epoch
from evscrub.delay_queue import DelayQueue, Source
from evscrub.keep import RELEASED_AFTER
from evscrub.leases import Leases
from evscrub.record import Record, Scrubbed
from evscrub.registry.claims import Claim, Settlement
from evscrub.registry_calls import RegistryCalls
from evscrub.retry import Delays
from evscrub.rules import ImageRow, Kind, LocationRow
from evscrub.settler import Settler
from evscrub.verdict import GONE, NOT_FOUND, SHARED, Outcome, Verdict
from evscrub.work import Work
from tests.unit.simulated_loop import run
from tests.unit.world import simulated_threads

AT = datetime(2026, 3, 1, 12)
NOW = epoch(AT) + 3600
DELAYS = Delays(initial=5, longest=600, in_use=1800, parked=3600)
NOT_OURS = Verdict(Outcome.NOT_OURS, "read_only_store", "StoreDeleteNotSupported")
TIMEOUT = Verdict(Outcome.TRANSIENT, "timeout")


def location(number: int, deleted_at: datetime = AT) -> LocationRow:
    return LocationRow(number, "file:///x", "fast", "pending_delete", True, deleted_at, AT)


def ended(
    image_id: str,
    *verdicts: Verdict,
    kind: Kind = Kind.PENDING,
    source: Source = Source.EVENT,
    deleted_at: datetime = AT,
    locations_at: datetime = AT,
) -> Work:
    """Return the work on an image with a location for each verdict."""
    rows = tuple(location(number, locations_at) for number, _ in enumerate(verdicts or (None,)))
    image = ImageRow(image_id, "owner", 1000, "deleted", True, deleted_at)
    work = Work(Claim(image, kind, rows, AT), AT, Moment(0, 0), NOW, source)
    for row, verdict in zip(rows, verdicts, strict=False):
        work.judged(row, row.store or "", verdict, NOW + 2)
    return work


class Registry:
    """Settles whatever it is given."""

    def settle(self, _settlements: Sequence[Settlement], _claim_timeout: timedelta) -> None:
        pass


def settle(
    *works: Work, capacity: int = 100, meanwhile: Callable[[DelayQueue], Any] = lambda _: None
) -> tuple[Record, list[Scrubbed]]:
    """Settle works; returns the record, and what was told of each image.

    The bus is joined since an hour before the images were deleted.
    """
    record = Record()
    told: list[Scrubbed] = []

    async def main() -> None:
        clock = Clock(anyio.current_time, lambda: NOW + anyio.current_time())
        queue = DelayQueue(capacity, origin=NOW)
        claims, database_clock = Registry(), DatabaseClock(clock)
        calls = RegistryCalls(clock, claims)  # type: ignore[arg-type] # a stand-in
        leases = Leases(claims, calls, clock, record, 60.0)  # type: ignore[arg-type] # a stand-in
        settler = Settler(
            queue,
            claims,  # type: ignore[arg-type] # a stand-in
            calls,
            leases,
            database_clock,
            record,
            DELAYS,
            lambda: None,
            told.append,
            lambda *_: None,
        )
        settler.bus_since = NOW - 7200
        meanwhile(queue)
        for work in works:
            queue.add(work.image_id, NOW - 1, lane="fast")
        queue.advance(NOW)
        queue.take("fast", len(works))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(settler.run)
            for work in works:
                settler.end(work)
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()

    with simulated_threads():
        run(main)
    return record, told


def test_what_was_deleted_is_counted_once_it_is_settled() -> None:
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


def test_what_a_store_had_not_and_is_not_believed_counts_as_unproven() -> None:
    works = [ended(str(number), NOT_FOUND) for number in range(20)]
    for work in works:
        work.doubt()
    record, told = settle(*works)
    assert record.outcomes == {("fast", "store_trouble", "unproven"): 20}
    assert (record.scrubbed, told) == (0, [])


@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [
        ([], "no_location"),
        ([SHARED], "shared_url"),
        ([NOT_OURS], "read_only_store"),
    ],
)
def test_an_image_whose_data_stays_is_finished_and_not_scrubbed(
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


def missed(work: Work, **fields: Any) -> int:
    return settle(work, **fields)[0].missed_by_bus


def test_what_only_a_sweep_brought_was_missed_by_the_bus() -> None:
    assert missed(ended("a", GONE, source=Source.SWEEP)) == 1
    assert missed(ended("a", GONE, source=Source.EVENT)) == 0


@pytest.mark.parametrize("kind", [Kind.STALE, Kind.GIVEN_BACK, Kind.ORPHAN])
def test_what_no_notification_announces_was_not_missed(kind: Kind) -> None:
    assert missed(ended("a", GONE, source=Source.SWEEP, kind=kind)) == 0


def test_what_was_deleted_before_the_bus_was_joined_was_not_missed() -> None:
    long_ago = AT - timedelta(hours=2)
    assert missed(ended("a", GONE, source=Source.SWEEP, deleted_at=long_ago)) == 0


def test_a_release_of_a_held_image_was_not_missed() -> None:
    work = ended("a", GONE, source=Source.SWEEP, locations_at=AT + RELEASED_AFTER)
    assert missed(work) == 0


def test_what_a_full_queue_turned_away_was_not_missed() -> None:
    def fill(queue: DelayQueue) -> None:
        for number in range(4):
            queue.add(f"other {number}", NOW + 100 + number)

    assert missed(ended("a", GONE, source=Source.SWEEP), capacity=3, meanwhile=fill) == 0
