# SPDX-License-Identifier: Apache-2.0
"""What may be scrubbed: each branch in a table, and what holds whatever the registry says."""

import random
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from evscrub.domain.decisions import (
    ALIVE,
    HELD,
    SCRUBBED,
    UNFINISHED,
    Damaged,
    Decision,
    ImageRow,
    Kind,
    Leave,
    LocationRow,
    Policy,
    Scrub,
    Wait,
    decide,
)
from tests.unit.examples import examples

NOW = datetime(2026, 11, 23, 12, 0, 0)
SECRET = "swift+https://user:secret@host/container/object"
POLICY = Policy(
    scrub_time=timedelta(hours=1),
    claim_timeout=timedelta(minutes=2),
    orphan_grace=timedelta(minutes=10),
)
TICK = timedelta(microseconds=1)

Registry = tuple[ImageRow, list[LocationRow]]


def ago(**interval: float) -> datetime:
    return NOW - timedelta(**interval)


LONG_AGO = ago(days=2)


def image(
    status: str,
    *,
    deleted: bool | None = None,
    deleted_at: datetime | None = LONG_AGO,
    updated_at: datetime | None = None,
) -> ImageRow:
    if deleted is None:
        deleted = status in {"pending_delete", "deleted"}
    time = deleted_at if deleted else None
    return ImageRow("id", "owner", 1, status, deleted, time, updated_at)


def location(
    status: str = "pending_delete",
    *,
    number: int = 1,
    deleted: bool = True,
    deleted_at: datetime | None = LONG_AGO,
    updated_at: datetime | None = LONG_AGO,
) -> LocationRow:
    return LocationRow(number, SECRET, "store", status, deleted, deleted_at, updated_at)


LIVE = location("active", number=9, deleted=False, deleted_at=None)
GONE = location("deleted", number=8)
ONE, TWO = location(number=1), location(number=2)


@pytest.mark.parametrize(
    ("row", "locations", "decision"),
    [
        pytest.param(
            image("pending_delete"), [ONE, TWO], Scrub(Kind.PENDING, (ONE, TWO)), id="over"
        ),
        pytest.param(
            image("pending_delete", deleted_at=ago(hours=1)),
            [ONE],
            Scrub(Kind.PENDING, (ONE,)),
            id="over this moment",
        ),
        pytest.param(
            image("pending_delete", deleted_at=ago(hours=1) + TICK),
            [ONE],
            Wait(1e-6, (ONE,)),
            id="almost",
        ),
        pytest.param(
            image("pending_delete", deleted_at=NOW),
            [ONE, TWO],
            Wait(3600, (ONE, TWO)),
            id="deleted just now",
        ),
        pytest.param(
            image("pending_delete", deleted_at=NOW + timedelta(days=1)),
            [ONE],
            Wait(3600 + 86400, (ONE,)),
            id="deleted in the future",
        ),
        pytest.param(
            image("pending_delete"), [], Scrub(Kind.PENDING, ()), id="no location: finish only"
        ),
        pytest.param(
            image("pending_delete"),
            [GONE, ONE],
            Scrub(Kind.PENDING, (ONE,)),
            id="some gone already",
        ),
        pytest.param(
            image("pending_delete"),
            [location(updated_at=NOW)],
            Scrub(Kind.PENDING, (location(updated_at=NOW),)),
            id="released just now: a lease is none while the image is pending",
        ),
        pytest.param(image("pending_delete", deleted_at=None), [ONE], Leave(HELD), id="held"),
        pytest.param(
            image("pending_delete", deleted_at=None), [ONE, LIVE], Leave(HELD), id="held, and live"
        ),
    ],
)
def test_pending_delete(row: ImageRow, locations: list[LocationRow], decision: Decision) -> None:
    assert decide(row, locations, NOW, POLICY) == decision


def lease(**interval: float) -> LocationRow:
    return location(number=3, updated_at=ago(**interval))


@pytest.mark.parametrize(
    ("row", "locations", "decision"),
    [
        pytest.param(image("deleted"), [], Leave(SCRUBBED), id="no location"),
        pytest.param(image("deleted"), [GONE], Leave(SCRUBBED), id="all gone"),
        pytest.param(image("deleted"), [GONE, ONE], Scrub(Kind.EXPIRED, (ONE,)), id="stale"),
        pytest.param(
            image("deleted"),
            [lease(minutes=2)],
            Scrub(Kind.EXPIRED, (lease(minutes=2),)),
            id="stale this moment",
        ),
        pytest.param(
            image("deleted", updated_at=ago(minutes=2)),
            [lease(minutes=2)],
            Scrub(Kind.EXPIRED, (lease(minutes=2),)),
            id="stale, with its lease in the image's row",
        ),
        pytest.param(
            image("deleted", updated_at=ago(minutes=7)),
            [lease(minutes=9)],
            Scrub(Kind.HANDED_BACK, (lease(minutes=9),)),
            id="handed back",
        ),
        pytest.param(
            image("deleted", updated_at=ago(minutes=1)),
            [lease(minutes=3), lease(minutes=2)],
            Scrub(Kind.EXPIRED, (lease(minutes=3), lease(minutes=2))),
            id="the youngest lease tells who let go",
        ),
        pytest.param(image("deleted"), [lease(seconds=119)], Wait(1), id="claimed"),
        pytest.param(
            image("deleted"),
            [ONE, lease(seconds=20)],
            Wait(100),
            id="the youngest lease counts",
        ),
        pytest.param(
            image("deleted"),
            [location(updated_at=None)],
            Scrub(Kind.EXPIRED, (location(updated_at=None),)),
            id="never stamped",
        ),
        pytest.param(
            image("deleted", deleted_at=None),
            [ONE],
            Scrub(Kind.EXPIRED, (ONE,)),
            id="stale, purged of its time",
        ),
        pytest.param(
            image("deleted", deleted_at=ago(minutes=50)),
            [lease(seconds=100)],
            Wait(600),
            id="deleted a second time: its own delay counts too",
        ),
    ],
)
def test_deleted(row: ImageRow, locations: list[LocationRow], decision: Decision) -> None:
    assert decide(row, locations, NOW, POLICY) == decision


def removed(updated: timedelta = timedelta(days=1), **interval: float) -> LocationRow:
    return location(number=4, deleted_at=ago(**interval), updated_at=NOW - updated)


@pytest.mark.parametrize("status", ["active", "queued", "saving", "deactivated", "importing"])
@pytest.mark.parametrize(
    ("locations", "decision"),
    [
        pytest.param([LIVE], Leave(ALIVE), id="nothing pending"),
        pytest.param([], Leave(ALIVE), id="no location at all"),
        pytest.param([GONE, LIVE], Leave(ALIVE), id="one scrubbed before"),
        pytest.param([ONE, LIVE], Scrub(Kind.ORPHAN, (ONE,)), id="an orphan"),
        pytest.param(
            [ONE, LIVE, removed(minutes=70)],
            Scrub(Kind.ORPHAN, (ONE, removed(minutes=70))),
            id="orphans this moment",
        ),
        pytest.param(
            [ONE, LIVE, removed(minutes=30)],
            Wait(2400, (ONE, removed(minutes=30))),
            id="one removed lately",
        ),
        pytest.param(
            [LIVE, removed(timedelta(seconds=30), minutes=70)],
            Wait(90),
            id="claimed by another",
        ),
        pytest.param(
            [LIVE, removed(timedelta(seconds=120), minutes=70)],
            Scrub(Kind.ORPHAN, (removed(timedelta(seconds=120), minutes=70),)),
            id="a stale claim of an orphan",
        ),
        pytest.param([LIVE, location(deleted_at=None)], Leave(ALIVE), id="the only orphan is held"),
        pytest.param(
            [LIVE, location(number=5, deleted_at=None, updated_at=NOW), ONE],
            Scrub(Kind.ORPHAN, (ONE,)),
            id="one of two orphans is held",
        ),
        pytest.param([LIVE, location(deleted=False)], Leave(ALIVE), id="pending but not deleted"),
    ],
)
def test_live(status: str, locations: list[LocationRow], decision: Decision) -> None:
    assert decide(image(status), locations, NOW, POLICY) == decision


@pytest.mark.parametrize("status", ["queued", "saving", "uploading", "importing", "killed"])
@pytest.mark.parametrize("locations", [[ONE], [ONE, GONE], [location(deleted_at=None)]])
def test_what_a_failed_import_left_waits_until_the_image_is_active_or_deleted(
    status: str, locations: list[LocationRow]
) -> None:
    """A next upload may be writing the same objects."""
    assert decide(image(status), locations, NOW, POLICY) == Leave(UNFINISHED)
    assert isinstance(decide(image(status, deleted=True), locations, NOW, POLICY), Damaged)


def test_orphans_are_left_if_turned_off() -> None:
    policy = replace(POLICY, orphans=False)
    assert decide(image("active"), [ONE, LIVE], NOW, policy) == Leave(ALIVE)


@pytest.mark.parametrize(
    ("row", "locations", "words"),
    [
        pytest.param(image("pending_delete", deleted=False), [ONE], "did not complete", id="half"),
        pytest.param(image("deleted", deleted=False), [ONE], "did not complete", id="half again"),
        pytest.param(image("pending_delete"), [ONE, LIVE], "live location", id="pending but live"),
        pytest.param(
            image("pending_delete"),
            [location(deleted=False)],
            "live location",
            id="a location that was never marked",
        ),
        pytest.param(image("deleted"), [ONE, LIVE], "live location", id="deleted but live"),
        pytest.param(image("active"), [ONE], "no live location", id="restored by glance-scrubber"),
        pytest.param(image("active"), [ONE, GONE], "no live location", id="and partly scrubbed"),
        pytest.param(
            image("active", deleted=True), [ONE, LIVE], "marked as deleted", id="live but deleted"
        ),
    ],
)
def test_damaged_images_are_never_scrubbed(
    row: ImageRow, locations: list[LocationRow], words: str
) -> None:
    decision = decide(row, locations, NOW, POLICY)
    assert isinstance(decision, Damaged)
    assert words in decision.reason


def test_no_url_is_shown() -> None:
    assert "secret" not in repr(decide(image("pending_delete"), [ONE], NOW, POLICY))


# Times that lie close together, so that limits are met from both sides and exactly.
moments = st.integers(-20, 3).map(lambda units: NOW + units * timedelta(seconds=30))
moments |= st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1))
statuses = st.sampled_from(["pending_delete", "deleted", "active", "queued", "killed", ""])

any_images = st.builds(
    ImageRow, st.just("id"), st.none(), st.none(), statuses, st.booleans(), st.none() | moments
)
any_locations = st.builds(
    LocationRow,
    st.integers(1, 5),
    st.just(SECRET),
    st.none(),
    st.sampled_from(["pending_delete", "deleted", "active", ""]),
    st.booleans(),
    st.none() | moments,
    st.none() | moments,
)
# As Glance and evscrub leave them.
pending_locations = st.builds(
    location, number=st.integers(1, 5), deleted_at=moments, updated_at=moments
)
deleted_images = st.builds(
    image, st.sampled_from(["pending_delete", "deleted"]), deleted_at=moments
)
registries = st.one_of(
    st.tuples(any_images, st.lists(any_locations | st.just(LIVE), max_size=4)),
    st.tuples(deleted_images, st.lists(pending_locations | st.just(GONE), min_size=1, max_size=4)),
    st.tuples(
        st.builds(image, st.sampled_from(["active", "deactivated"])),
        st.lists(pending_locations, min_size=1, max_size=2).map(lambda rows: [LIVE, *rows]),
    ),
)
intervals = st.integers(0, 10).map(lambda units: units * timedelta(seconds=30))
policies = st.builds(
    Policy, intervals, intervals, intervals, st.sampled_from([True, True, True, False])
)


def is_live(row: LocationRow) -> bool:
    return not row.deleted


def leases_are_old(rows: tuple[LocationRow, ...], policy: Policy) -> bool:
    return all(
        row.updated_at is None or row.updated_at + policy.claim_timeout <= NOW for row in rows
    )


@settings(max_examples=examples(500))
@given(registries, policies)
def test_every_scrub_obeys_the_rules(registry: Registry, policy: Policy) -> None:
    row, locations = registry
    decision = decide(row, locations, NOW, policy)
    event(type(decision).__name__)
    if not isinstance(decision, Scrub):
        return
    event(decision.kind.value)
    for one in decision.locations:
        assert one in locations
        assert one.status == "pending_delete"
        assert not is_live(one)
    match decision.kind:
        case Kind.PENDING:
            assert row.status == "pending_delete"
            assert row.deleted
            assert row.deleted_at is not None
            assert row.deleted_at + policy.scrub_time <= NOW
            assert not any(map(is_live, locations))
        case Kind.EXPIRED | Kind.HANDED_BACK:
            assert row.status == "deleted"
            assert row.deleted
            assert not any(map(is_live, locations))
            assert leases_are_old(decision.locations, policy)
            assert row.deleted_at is None or row.deleted_at + policy.scrub_time <= NOW
            assert decision.locations
        case Kind.ORPHAN:
            assert policy.orphans
            assert row.status not in {"pending_delete", "deleted"}
            assert not row.deleted
            assert any(map(is_live, locations))
            assert leases_are_old(decision.locations, policy)
            assert decision.locations
            for one in decision.locations:
                assert one.deleted_at is not None
                assert one.deleted_at + policy.scrub_time + policy.orphan_grace <= NOW


@settings(max_examples=examples(500))
@given(registries, policies)
def test_one_wait_is_enough(registry: Registry, policy: Policy) -> None:
    row, locations = registry
    decision = decide(row, locations, NOW, policy)
    if isinstance(decision, Wait):
        assert decision.seconds > 0
        wait = timedelta(seconds=decision.seconds)
        later = decide(row, locations, NOW + wait, policy)
        assert isinstance(later, Scrub)
        assert decision.locations in {(), later.locations}
        # And it was not told to wait longer than it has to.
        assert isinstance(decide(row, locations, NOW + wait - TICK, policy), Wait)
    elif isinstance(decision, Scrub):
        assert isinstance(decide(row, locations, NOW + timedelta(days=1), policy), Scrub)


@given(registries, policies)
def test_held_images_are_never_scrubbed(registry: Registry, policy: Policy) -> None:
    row, locations = registry
    held = row._replace(status="pending_delete", deleted_at=None)
    assert not isinstance(decide(held, locations, NOW, policy), Scrub | Wait)
    orphans = [one._replace(deleted_at=None) for one in locations]
    live = row._replace(status="active", deleted=False)
    assert not isinstance(decide(live, [*orphans, LIVE], NOW, policy), Scrub | Wait)


@given(registries, policies, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(
    registry: Registry, policy: Policy, rng: random.Random
) -> None:
    row, locations = registry
    shuffled = list(locations)
    rng.shuffle(shuffled)
    first, second = (decide(row, rows, NOW, policy) for rows in (locations, shuffled))
    if isinstance(first, Scrub | Wait) and isinstance(second, Scrub | Wait):
        assert Counter(first.locations) == Counter(second.locations)
        first, second = (replace(decision, locations=()) for decision in (first, second))
    assert first == second
