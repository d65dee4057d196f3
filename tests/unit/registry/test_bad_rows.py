# SPDX-License-Identifier: Apache-2.0
"""Rows as nobody should have written them: each harms itself alone."""

from __future__ import annotations

import json
import sqlite3
import tracemalloc
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oslo_db import exception as db_exception

from evscrub.domain.decisions import ImageRow, LocationRow, Policy, Scrub, decide
from evscrub.domain.image_report import AgentReports, Listed, claim_expires_at, describe_any
from evscrub.domain.verdict import Verdict
from evscrub.registry.claims import Claim, Renewal, Seen, Settlement, Sight, _new_lease
from evscrub.registry.faults import is_of_rows
from evscrub.registry.gateway import RegistryAwayError
from evscrub.registry.rows import location_row, named_store, unchecked_location_row
from evscrub.scrubbing import isolation
from evscrub.scrubbing.scrubber import Scrubber
from tests.unit.world import SETTINGS, World, fast

STATUSES = st.sampled_from(["pending_delete", "deleted", "active", "queued", "weird", ""])
EDGES = st.sampled_from([datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)])
TIMES = st.none() | st.datetimes() | EDGES
LOCATIONS = st.builds(
    LocationRow,
    id=st.integers(-(2**63), 2**63),
    value=st.text(),
    store=st.none() | st.text(),
    status=STATUSES,
    deleted=st.booleans(),
    deleted_at=TIMES,
    updated_at=TIMES,
)
IMAGES = st.builds(
    ImageRow,
    id=st.text(max_size=99),
    owner=st.none() | st.text(),
    size=st.none() | st.integers(-(2**70), 2**70),
    status=STATUSES,
    deleted=st.booleans(),
    deleted_at=TIMES,
    updated_at=TIMES,
)
POLICY = Policy(scrub_time=timedelta(days=36500), claim_timeout=timedelta(days=1))


given_rows = given(
    IMAGES,
    st.lists(LOCATIONS, max_size=4),
    st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1)),
)


@given_rows
def test_every_row_is_decided_about(
    image: ImageRow, locations: list[LocationRow], now: datetime
) -> None:
    decision = decide(image, locations, now, POLICY)
    lease = _new_lease([Sight(image, decision)], now, POLICY)
    assert now.replace(microsecond=0) <= lease <= now + 2 * POLICY.claim_timeout
    if isinstance(decision, Scrub):
        assert all(row.updated_at != lease for row in decision.locations)


@given_rows
def test_every_row_is_reported_on(
    image: ImageRow, locations: list[LocationRow], now: datetime
) -> None:
    seen = Listed(image, None, tuple(locations), now)
    report = describe_any(seen, POLICY, AgentReports(), lambda row: row.store or "none")
    assert report.id == image.id
    claim_expires_at(seen, POLICY)


@pytest.mark.parametrize("status", ["pending_delete", "deleted", "active"])
@pytest.mark.parametrize("field", ["deleted_at", "updated_at"])
@pytest.mark.parametrize("time", [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)])
def test_dates_at_the_edges_are_decided_about(status: str, field: str, time: datetime) -> None:
    now = datetime(2026, 11, 26)
    row = LocationRow(1, "file:///x", "fast", "pending_delete", True, now, now)
    live = row._replace(status="active", deleted=False)
    image = ImageRow("image", None, 1, status, status != "active", datetime(2000, 1, 1), now)
    change: dict[str, Any] = {field: time}
    locations = [row._replace(**change), *([live] if status == "active" else [])]
    for seen in (image, image._replace(**change)):
        policy = Policy(timedelta(seconds=1), timedelta(minutes=1))
        listed = Listed(seen, None, tuple(locations), now)
        assert describe_any(listed, policy, AgentReports(), lambda _: "fast").id == seen.id
        claim_expires_at(listed, policy)
        decision = decide(seen, locations, now, policy)
        lease = _new_lease([Sight(seen, decision)], now, policy)
        assert now <= lease <= now + timedelta(minutes=2)


@pytest.mark.parametrize("opening", ["[", '{"store":', '[{"a":'])
def test_metadata_that_is_nested_too_deep_names_no_store(opening: str) -> None:
    assert named_store(opening * 20_000) is None


def test_metadata_that_is_long_is_not_kept() -> None:
    """A location's metadata is its image's owner's, and may fill its column."""
    tracemalloc.start()
    try:
        for number in range(100):
            metadata = json.dumps({"store": str(number), "x": "a" * 50_000})
            assert named_store(metadata) == str(number)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000


def test_metadata_with_a_huge_number_names_no_store() -> None:
    assert named_store('{"store": ' + "9" * 50_000 + "}") is None


@pytest.mark.parametrize("times", [("0000-00-00 00:00:00", None), (None, "2020-00-00 00:00:00")])
def test_invalid_date_is_an_error(times: tuple[str | None, str | None]) -> None:
    with pytest.raises(ValueError, match="a date is invalid"):
        location_row(("image", 1, "file:///x", "{}", "pending_delete", True, *times))


@pytest.mark.parametrize("value", [None, b"file:///x", 7])
def test_location_without_a_url_is_an_error(value: object) -> None:
    with pytest.raises(ValueError, match="a location has no URL"):
        location_row(("image", 1, value, "{}", "pending_delete", True, None, None))


def test_unchecked_row_keeps_invalid_values() -> None:
    times = ("0000-00-00 00:00:00", None)
    row = ("image", 1, None, '{"store": "fast"}', "pending_delete", True, *times, "further")
    found = unchecked_location_row(row)
    assert found == LocationRow(1, None, "fast", "pending_delete", True, *times)  # type: ignore[arg-type] # as a database may hold them


class CauseError(Exception):
    """What a driver raises: psycopg2 has `pgcode`, psycopg `sqlstate`, mysqlconnector `errno`."""

    def __init__(self, *arguments: object, **attributes: object) -> None:
        super().__init__(*arguments)
        self.__dict__.update(attributes)


@pytest.mark.parametrize(
    ("error", "of_rows"),
    [
        (KeyError("id"), True),
        (TypeError("str"), True),
        (OverflowError("date value out of range"), True),
        (db_exception.DBError(ValueError("year -44 is out of range")), True),
        (db_exception.DBError(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")), True),
        (db_exception.DBDataError(CauseError(1292, "Incorrect datetime value")), True),
        (db_exception.DBError(CauseError(4025, "CONSTRAINT `c` failed")), True),
        (db_exception.DBError(CauseError(1644, "a trigger's SIGNAL")), True),
        (db_exception.DBError(CauseError("a trigger's RAISE", pgcode="P0001")), True),
        (db_exception.DBError(CauseError("out of range", pgcode="22008")), True),
        (db_exception.DBError(CauseError("out of range", sqlstate="22008")), True),
        (db_exception.DBError(CauseError("a trigger's RAISE", sqlstate="P0001")), True),
        (db_exception.DBError(CauseError("a CHECK", errno=4025, sqlstate="23000")), True),
        (db_exception.DBError(CauseError(1290, "--read-only")), False),
        (db_exception.DBError(CauseError("in recovery", pgcode="25006")), False),
        (db_exception.DBError(CauseError("shutdown", pgcode="57P01")), False),
        (db_exception.DBError(CauseError("shutdown", sqlstate="57P01")), False),
        (db_exception.DBError(CauseError("--read-only", errno=1290, sqlstate="HY000")), False),
        (db_exception.DBConnectionError(CauseError(2006, "gone away")), False),
        (db_exception.DBDeadlock(CauseError(1213, "Deadlock")), False),
        (db_exception.DBError(sqlite3.OperationalError("disk I/O error")), False),
        (db_exception.DBError(None), False),
        (RuntimeError("can't start new thread"), False),
    ],
)
def test_errors_of_rows_differ_from_errors_of_the_database(error: Exception, of_rows: bool) -> None:
    assert is_of_rows(error) is of_rows


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_batch_is_bisected_to_the_bad_rows(bad: list[bool]) -> None:
    done: list[int] = []
    refused: list[int] = []
    calls = [0]

    async def act(batch: Sequence[int]) -> None:
        calls[0] += 1
        if any(bad[number] for number in batch):
            raise ValueError("bad")
        done.extend(batch)

    anyio.run(isolation.apart, range(len(bad)), act, lambda number, _: refused.append(number))
    assert refused == [number for number, is_bad in enumerate(bad) if is_bad]
    assert done == [number for number, is_bad in enumerate(bad) if not is_bad]
    assert calls[0] <= 1 + 2 * 6 * sum(bad)


def test_registry_that_is_down_does_not_split_a_batch() -> None:
    calls = [0]

    async def act(batch: Sequence[int]) -> None:
        calls[0] += 1
        raise RegistryAwayError

    with pytest.raises(RegistryAwayError):
        anyio.run(isolation.apart, [1, 2], act, lambda *_: None)
    assert calls == [1]


class BadWorld(World):
    """A world in which some images' rows make a step raise, as data errors of a database do."""

    raises_in = ""
    error: Exception = KeyError("780B7830")
    bad: Collection[str] = ()
    claim_calls = 0

    def _meet(self, step: str, ids: Iterable[str]) -> None:
        if step == self.raises_in and set(ids) & set(self.bad):
            raise self.error

    def look(self, image_ids: Collection[str], policy: Policy) -> Seen:
        self._meet("look", image_ids)
        return super().look(image_ids, policy)

    def claim(self, image_ids: Collection[str], policy: Policy) -> Seen:
        self.claim_calls += 1
        self._meet("claim", image_ids)
        return super().claim(image_ids, policy)

    def among(self, rows: Collection[LocationRow]) -> dict[int, Verdict]:
        self._meet("among", [row.value.rpartition("/")[2] for row in rows])
        return super().among(rows)

    def renew(self, held: Collection[tuple[Claim, datetime]]) -> Renewal:
        self._meet("renew", [claim.image.id for claim, _ in held])
        return super().renew(held)

    def settle(
        self, settlements: Sequence[Settlement], claim_timeout: timedelta
    ) -> Collection[str]:
        self._meet("settle", [end.image_id for end in settlements])
        return super().settle(settlements, claim_timeout)


@pytest.mark.parametrize("stores", [("a",), ("a", "b")])
@pytest.mark.parametrize("step", ["look", "claim", "settle"])
@pytest.mark.parametrize(
    "error", [KeyError("780B7830"), db_exception.DBDataError(CauseError("secret://url"))]
)
def test_bad_row_affects_only_its_image(
    caplog: pytest.LogCaptureFixture, step: str, stores: tuple[str, ...], error: Exception
) -> None:
    world = BadWorld(SETTINGS, **dict.fromkeys(stores, fast))
    ids = [world.add("owner", stores[number % len(stores)]) for number in range(40)]
    world.raises_in, world.error, world.bad = step, error, ids[7:9]
    parked: list[dict[str, Any]] = []

    async def watch(scrubber: Scrubber) -> None:
        await anyio.sleep(30)
        parked.append(dict(scrubber._record.troubles))

    world.run(until=31, meanwhile=watch)
    good = [name for name in ids if name not in world.bad]
    assert [name for name in good if world.status(name) != "deleted"] == []
    assert set(parked[0]) == set(world.bad)
    assert all(trouble.parked for trouble in parked[0].values())
    assert {trouble.verdict.reason for trouble in parked[0].values()} == {"bad_row"}
    told = [one.getMessage() for one in caplog.records if "left alone" in one.getMessage()]
    assert [text.partition(",")[0] for text in told] == ["2 images are left alone"]
    assert "secret" not in "".join(told)


@pytest.mark.parametrize(
    "error", [KeyError("780B7830"), db_exception.DBDataError(CauseError("secret://url"))]
)
def test_bad_row_of_a_sharing_image_affects_only_that_image(error: Exception) -> None:
    """The claims are made when it is asked who shares the data: all others go on at once."""
    world = BadWorld(a=fast)
    ids = [world.add("owner", "a") for _ in range(40)]
    world.raises_in, world.error, world.bad = "among", error, ids[7:9]
    parked: list[dict[str, Any]] = []

    async def watch(scrubber: Scrubber) -> None:
        await anyio.sleep(5)
        parked.append(dict(scrubber._record.troubles))

    world.run(until=6, meanwhile=watch)
    assert [name for name in ids if world.status(name) != "deleted"] == ids[7:9]
    assert {world.status(name) for name in world.bad} == {"pending_delete"}
    assert set(parked[0]) == set(world.bad)
    assert {trouble.verdict.reason for trouble in parked[0].values()} == {"bad_row"}


def test_claim_that_cannot_be_renewed_affects_only_itself() -> None:
    world = BadWorld(a=lambda _: (300.0, fast(0)[1]))
    ids = [world.add("owner", "a") for _ in range(16)]
    world.raises_in, world.bad = "renew", ids[3:4]
    lost: list[str] = []

    async def watch(scrubber: Scrubber) -> None:
        await anyio.sleep(290)
        lost.extend(job.image_id for job in scrubber._leases.jobs if job.lease.is_lost)

    world.run(until=400, meanwhile=watch)
    assert lost == ids[3:4]


def test_other_exceptions_are_retried_soon() -> None:
    world = BadWorld(a=fast)
    ids = [world.add("owner", "a") for _ in range(5)]
    world.raises_in, world.bad, world.error = "claim", ids[:1], RuntimeError("no thread")

    async def mend(_: Scrubber) -> None:
        await anyio.sleep(30)
        world.bad = ()

    assert world.run(until=200, meanwhile=mend) < 100
    assert len(world.asked) == 5
