# SPDX-License-Identifier: Apache-2.0
"""Which images may be restored, held and released, and with which of their locations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.domain import hold_rules
from evscrub.domain.decisions import HELD, ImageRow, Leave, LocationRow, Policy, decide

AT = datetime(2026, 3, 1, 12)
POLICY = Policy(scrub_time=timedelta(hours=1), claim_timeout=timedelta(minutes=2))

Plan = Callable[[ImageRow | None, Sequence[LocationRow]], hold_rules.Deletion]


def image(
    status: str = "pending_delete", *, at: datetime | None = AT, live: bool = False
) -> ImageRow:
    return ImageRow("image", "owner", 4, status, not live, at)


def location(
    number: int = 1, status: str = "pending_delete", *, at: datetime | None = AT
) -> LocationRow:
    return LocationRow(number, "file:///x", "fast", status, status != "active", at, AT)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.mark.parametrize(
    ("row", "locations", "reason"),
    [
        (None, [], "it is not in the registry"),
        (image("deleted"), [location()], "it is being scrubbed"),
        (image("deleted", live=True), [location()], "its DELETE did not complete: delete it again"),
        (image("deleted"), [location(), location(2, "deleted")], "it is being scrubbed"),
        (image("deleted"), [location(1, "deleted")], "it is already scrubbed"),
        (image("deleted"), [], "it is already scrubbed"),
        (image("active", live=True), [location(1, "active")], "it is not deleted, it is active"),
        (
            image("deactivated", live=True),
            [location(1, "active"), location(2)],
            "it is not deleted, it is deactivated",
        ),
        (image("queued", live=True), [], "not pending delete but queued"),
        (image("queued", live=True), [location()], "not pending delete but queued"),
        (image("killed", live=True), [location()], "not pending delete but killed"),
        (image("active", live=True), [], "it has no location left"),
        (image(), [], "it has no location left"),
        (image(), [location(1, "deleted")], "it has no location left"),
        # Taken off the live image before, whose own location is scrubbed.
        (
            image(),
            [location(1, "deleted", at=AT + seconds(900)), location(2, at=AT - seconds(61))],
            "it has no location left",
        ),
        (image(), [location(at=AT + seconds(3))], "it has no location left"),
        (image(at=None), [], "it has no location left"),
    ],
)
def test_restore_is_refused(
    row: ImageRow | None, locations: list[LocationRow], reason: str
) -> None:
    for plan in (hold_rules.to_restore, hold_rules.to_hold, hold_rules.to_release):
        with pytest.raises(hold_rules.RefusedError):
            plan(row, locations)
    with pytest.raises(hold_rules.RefusedError, match=reason) as caught:
        hold_rules.to_restore(row, locations)
    is_unchanged = isinstance(caught.value, hold_rules.UnchangedError)
    assert is_unchanged == reason.startswith("it is not deleted")


@pytest.mark.parametrize(
    ("row", "locations", "back"),
    [
        (image(), [location()], {1}),
        (image(), [location(1), location(2)], {1, 2}),
        # In part scrubbed: the rest comes back.
        (image(), [location(1, "deleted"), location(2)], {2}),
        (image(), [location(1, "deleted", at=AT + seconds(900)), location(2)], {2}),
        # Glance marks locations first, each with its own clock reading; MySQL rounds.
        (image(), [location(at=AT - seconds(60))], {1}),
        (image(), [location(1, "deleted"), location(2, at=AT - seconds(60))], {2}),
        # Barbican did not answer, or the database stood still, before the image was marked.
        (image(), [location(at=AT - seconds(61))], {1}),
        (image(), [location(1, at=AT - seconds(400)), location(2, at=AT - seconds(340))], {1, 2}),
        (image(), [location(1, at=AT - seconds(401)), location(2, at=AT - seconds(340))], {2}),
        # Taken off and scrubbed long before.
        (
            image(),
            [location(1, "deleted", at=AT - seconds(9000)), location(2, at=AT - seconds(340))],
            {2},
        ),
        (image(), [location(at=AT + seconds(2))], {1}),
        # Taken off the live image long before: not part of what was deleted.
        (image(), [location(1, at=AT - seconds(3600)), location(2)], {2}),
        # A DELETE that broke off before it marked the image as deleted.
        (image(live=True), [location()], {1}),
        # After glance-scrubber --restore.
        (image("active", live=True), [location()], {1}),
        (image("deactivated", live=True), [location()], {1}),
        (image("active", live=True, at=None), [location()], {1}),
        # Held.
        (image(at=None), [location(at=None)], {1}),
        (image(at=None), [location(1, at=None), location(2, at=AT - seconds(3600))], {1}),
        # Whoever cleared the image's time left its locations'; the last deletion counts.
        (image(at=None), [location(1), location(2, at=AT - seconds(3600))], {1}),
    ],
)
def test_rows_that_a_restore_selects(
    row: ImageRow, locations: list[LocationRow], back: set[int]
) -> None:
    deletion = hold_rules.to_restore(row, locations)
    assert {found.id for found in deletion.locations} == back
    assert deletion.status == ("deactivated" if row.status == "deactivated" else "active")


@pytest.mark.parametrize(
    ("plan", "row", "where", "reason"),
    [
        (hold_rules.to_hold, image(at=None), location(at=None), "it is held already"),
        (hold_rules.to_release, image(), location(), "it is not held"),
        (
            hold_rules.to_hold,
            image("active", live=True),
            location(),
            "not pending delete but active",
        ),
        (
            hold_rules.to_release,
            image("active", live=True),
            location(),
            "not pending delete but active",
        ),
        (hold_rules.to_hold, image(live=True), location(), "its DELETE did not complete"),
        (hold_rules.to_release, image(live=True), location(), "its DELETE did not complete"),
        (hold_rules.to_hold, image("deleted"), location(), "it is being scrubbed"),
    ],
)
def test_hold_and_release_are_refused(
    plan: Plan, row: ImageRow, where: LocationRow, reason: str
) -> None:
    with pytest.raises(hold_rules.RefusedError, match=reason) as caught:
        plan(row, [where])
    is_unchanged = isinstance(caught.value, hold_rules.UnchangedError)
    assert is_unchanged == (reason in {"it is held already", "it is not held"})


def test_deletion_time() -> None:
    """Properties, tags and members of one DELETE carry a time near the image's."""
    assert hold_rules.to_restore(image(), [location(at=AT - seconds(1))]).at == AT
    assert hold_rules.to_restore(image(at=None), [location()]).at == AT
    assert hold_rules.to_restore(image(at=None), [location(at=None)]).at is None


@pytest.mark.parametrize(
    ("row", "at", "released"),
    [
        (image(), AT, False),
        (image(), AT - seconds(1), False),
        (image(), None, False),
        (image(), AT + hold_rules.RELEASED_AFTER, True),
        (image(at=None), AT, False),
    ],
)
def test_release_is_distinguished_from_a_delete(
    row: ImageRow, at: datetime | None, released: bool
) -> None:
    assert hold_rules.was_released(row, [location(at=at)]) is released
    earlier = location(2, at=AT - seconds(3600))
    assert hold_rules.was_released(row, [earlier, location(at=at)]) is released


@pytest.mark.parametrize(
    ("properties", "count"),
    [
        ([], 0),
        ([("colour", "red")], 0),
        ([("cinder_encryption_key_id", "k")], 0),
        ([("cinder_encryption_key_deletion_policy", "on_image_deletion")], 0),
        (
            [
                ("cinder_encryption_key_id", "k"),
                ("cinder_encryption_key_deletion_policy", "do_not_delete"),
            ],
            0,
        ),
        (
            [
                ("cinder_encryption_key_id", "k-1"),
                ("cinder_encryption_key_deletion_policy", "on_image_deletion"),
            ],
            1,
        ),
    ],
)
def test_destroyed_key_is_a_warning(properties: list[tuple[str, str | None]], count: int) -> None:
    notes = hold_rules.warnings(properties)
    assert len(notes) == count
    assert all("k-1" in note for note in notes)


times = st.one_of(st.none(), st.integers(-70, 5).map(lambda number: AT + seconds(number)))
statuses = st.sampled_from(
    ["pending_delete", "pending_delete", "active", "deactivated", "deleted", "queued", "killed"]
)
image_rows = st.builds(
    ImageRow, st.just("image"), st.none(), st.just(4), statuses, st.booleans(), times
)
location_rows = st.lists(
    st.builds(
        LocationRow,
        st.integers(1, 1000),
        st.just("file:///x"),
        st.just("fast"),
        st.sampled_from(["active", "pending_delete", "deleted"]),
        st.booleans(),
        times,
        times,
    ),
    max_size=5,
    unique_by=lambda row: row.id,
)


def planned(
    plan: Plan, row: ImageRow, locations: Sequence[LocationRow]
) -> hold_rules.Deletion | None:
    try:
        return plan(row, locations)
    except hold_rules.RefusedError:
        return None


@given(image_rows, location_rows)
def test_scrubbed_or_claimed_images_are_not_restored(
    row: ImageRow, locations: list[LocationRow]
) -> None:
    deletion = planned(hold_rules.to_restore, row, locations)
    if deletion is None:
        return
    assert row.status in {"pending_delete", "active", "deactivated"}
    assert deletion.locations
    for found in deletion.locations:
        assert found.deleted
        assert found.status == "pending_delete"


@given(image_rows, location_rows)
def test_images_that_may_be_held_may_be_restored(
    row: ImageRow, locations: list[LocationRow]
) -> None:
    restore = planned(hold_rules.to_restore, row, locations)
    hold = planned(hold_rules.to_hold, row, locations)
    release = planned(hold_rules.to_release, row, locations)
    assert hold is None or hold == restore
    assert release is None or release == restore
    assert hold is None or release is None
    waits = restore is not None and row.status == "pending_delete" and row.deleted
    assert (hold is not None or release is not None) == waits


@given(image_rows, location_rows)
def test_hold_then_release_or_restore_is_about_the_same_locations(
    row: ImageRow, locations: list[LocationRow]
) -> None:
    row = row._replace(status="pending_delete", deleted=True)
    hold = planned(hold_rules.to_hold, row, locations)
    if hold is None:
        return
    ids = {found.id for found in hold.locations}
    held = row._replace(deleted_at=None)
    untimed = [where._replace(deleted_at=None) if where.id in ids else where for where in locations]
    assert decide(held, untimed, AT + timedelta(days=999), POLICY) == Leave(HELD)
    assert planned(hold_rules.to_hold, held, untimed) is None
    for plan in (hold_rules.to_release, hold_rules.to_restore):
        again = planned(plan, held, untimed)
        assert again is not None
        assert {found.id for found in again.locations} >= ids
    released = held._replace(deleted_at=AT)
    timed = [where._replace(deleted_at=AT) if where.id in ids else where for where in untimed]
    assert planned(hold_rules.to_release, released, timed) is None
    again = planned(hold_rules.to_restore, released, timed)
    assert again is not None
    assert {found.id for found in again.locations} >= ids
