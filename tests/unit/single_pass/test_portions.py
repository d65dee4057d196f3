# SPDX-License-Identifier: Apache-2.0
"""What a pass would do with each location of an image, and the sums of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from evscrub.domain.decisions import ImageRow, LocationRow, Policy
from evscrub.domain.image_report import AgentReports, Listed, ReportedTrouble
from evscrub.domain.verdict import SHARED, StoreNotUsableError, Verdict, maybe_shared
from evscrub.single_pass.account import MAX_GROUPS, OTHERS, Account
from evscrub.single_pass.portions import (
    NO_STORE,
    Fate,
    Knowledge,
    Portion,
    as_of,
    is_scrubbable,
    left,
    portions,
)

NOW = datetime(2026, 5, 1, 12, 0, 0)
HOUR = timedelta(hours=1)
LONG_AGO = NOW - 3 * HOUR


def image(status: str = "pending_delete", deleted_at: datetime | None = LONG_AGO) -> ImageRow:
    return ImageRow("id", "owner", 10, status, status != "active", deleted_at)


def location(number: int = 1, store: str = "a", updated_at: datetime = LONG_AGO) -> LocationRow:
    return LocationRow(
        number, f"file:///{store}/id", store, "pending_delete", True, LONG_AGO, updated_at
    )


def check(row: LocationRow) -> None:
    if row.store == "nowhere":
        raise StoreNotUsableError("store_not_enabled", "store nowhere is not enabled")


def found(
    row: ImageRow,
    *locations: LocationRow,
    shared: Mapping[int, Verdict] | None = None,
    reported: AgentReports | None = None,
) -> Sequence[tuple[str, Fate, str]]:
    known = Knowledge(
        Policy(scrub_time=HOUR, claim_timeout=timedelta(minutes=2)),
        reported or AgentReports(),
        lambda row: row.store or "?",
        check,
        frozenset({"http"}),
    )
    seen = Listed(row, "name", locations, NOW)
    return [(one.store, one.fate, one.reason) for one in portions(seen, known, shared)]


def test_due_locations_go() -> None:
    assert found(image(), location(), location(2, "b")) == [
        ("a", Fate.GOES, ""),
        ("b", Fate.GOES, ""),
    ]


def test_location_that_failed_before_goes_with_its_reason() -> None:
    reported = AgentReports({"id": ReportedTrouble("retrying", "throttled")})
    assert found(image(), location(), reported=reported) == [("a", Fate.GOES, "throttled")]


@pytest.mark.parametrize(
    ("row", "fate", "reason"),
    [
        (image(deleted_at=NOW), Fate.LATER, "not due yet"),
        (image(deleted_at=None), Fate.LATER, "held until it is released"),
        (image("active"), Fate.LATER, "damaged: the image is active but has no live location left"),
    ],
)
def test_images_that_are_not_due(row: ImageRow, fate: Fate, reason: str) -> None:
    assert found(row, location(), location(2, "b")) == [("a", fate, reason), ("b", fate, reason)]


def test_image_of_another_process() -> None:
    assert found(image("deleted"), location(updated_at=NOW)) == [
        ("a", Fate.STAYS, "claimed by another agent or pass")
    ]


@pytest.mark.parametrize("state", ["parked", "in use"])
def test_images_that_agents_know_about(state: str) -> None:
    reported = AgentReports({"id": ReportedTrouble(state, "clones exist")})
    assert found(image(), location(), reported=reported) == [
        ("a", Fate.STAYS, f"{state}: clones exist")
    ]


def test_locations_of_an_image_have_fates_of_their_own() -> None:
    reported = AgentReports(stores={"c": "store c is paused: its directory is empty"})
    locations = [location(n, store) for n, store in enumerate(["a", "b", "nowhere", "c", "http"])]
    shared = {0: SHARED, 1: maybe_shared("a")}
    (a, b, *others) = found(image(), *locations, shared=shared, reported=reported)
    assert a == ("a", Fate.FINISHED, "another image has the same data")
    assert b[:2] == ("b", Fate.STAYS)
    assert "enable that store if it is not" in b[2]
    assert others == [
        ("nowhere", Fate.STAYS, "store nowhere is not enabled"),
        ("c", Fate.STAYS, "store c is paused: its directory is empty"),
        ("http", Fate.FINISHED, "the store is read-only"),
    ]


def test_image_without_a_location_is_finished() -> None:
    assert found(image()) == [(NO_STORE, Fate.FINISHED, "no location left")]


def test_image_that_is_not_to_be_scrubbed_has_no_portions() -> None:
    assert found(image("deleted")) == []


def portion(number: int, owner: str | None, fate: Fate = Fate.GOES, reason: str = "") -> Portion:
    due_at = NOW - timedelta(seconds=number)
    return Portion(f"i{number}", owner, "a", fate, "due", reason, 10, due_at)


def test_account_sums_up_and_keeps_the_earliest_due_time() -> None:
    account = Account()
    for number in range(6):
        account.add(portion(number, "one" if number % 2 else "two"))
    account.add(portion(9, None, Fate.STAYS, "in use"))
    account.add(portion(8, "one", Fate.STAYS, "in use"))
    assert [(one.like.owner, one.images, one.size_bytes, one.like.due_at) for one in account] == [
        ("one", 3, 30, NOW - timedelta(seconds=5)),
        ("two", 3, 30, NOW - timedelta(seconds=4)),
        (None, 1, 10, NOW - timedelta(seconds=9)),
        ("one", 1, 10, NOW - timedelta(seconds=8)),
    ]
    assert account.images(Fate.GOES, Fate.STAYS) == 8
    assert account.size_bytes(Fate.STAYS) == 20
    assert account.by_reason(Fate.STAYS) == {"in use": (2, 20)}
    assert account.images(Fate.LATER) == 0


def test_account_of_many_owners_takes_bounded_memory() -> None:
    account = Account()
    for number in range(3 * MAX_GROUPS):
        account.add(portion(number, f"o{number}"))
    sums = list(account)
    assert len(sums) == MAX_GROUPS + 1
    assert account.images(Fate.GOES) == 3 * MAX_GROUPS
    assert max(sums, key=lambda one: one.images).like.owner == OTHERS


@pytest.mark.costly
def test_account_of_many_reasons_and_stores_takes_bounded_memory() -> None:
    """Rows may name any store, and reasons name what a URL says."""
    account = Account()
    for number in range(5 * MAX_GROUPS):
        account.add(
            replace(portion(number, "o", Fate.STAYS, f"reason {number}"), store=f"s{number}")
        )
    assert len(list(account)) == 2 * MAX_GROUPS + 1
    assert account.images(Fate.STAYS) == 5 * MAX_GROUPS


@pytest.mark.parametrize(
    ("fate", "reason", "expected"),
    [
        (Fate.GOES, "", (Fate.STAYS, "beyond")),
        (Fate.GOES, "throttled", (Fate.STAYS, "throttled")),
        (Fate.FINISHED, "another image has the same data", (Fate.STAYS, "beyond")),
        (Fate.STAYS, "in use", (Fate.STAYS, "in use")),
        (Fate.LATER, "not due yet", (Fate.LATER, "not due yet")),
    ],
)
def test_what_a_pass_leaves(fate: Fate, reason: str, expected: tuple[Fate, str]) -> None:
    one = left(portion(1, "o", fate, reason), "beyond")
    assert (one.fate, one.reason) == expected
    assert is_scrubbable([one, portion(2, "o", fate)]) == (fate in {Fate.GOES, Fate.FINISHED})


def test_what_falls_due_meanwhile_is_for_the_next_pass() -> None:
    """Else a pass would not end while images keep falling due."""
    began = NOW - timedelta(seconds=5)
    assert as_of(portion(5, "o"), began) == portion(5, "o")
    for fate in (Fate.GOES, Fate.FINISHED, Fate.STAYS):
        one = as_of(portion(4, "o", fate), began)
        assert (one.fate, one.reason) == (Fate.LATER, "due since the pass began")
        assert not is_scrubbable([one])
    later = portion(4, "o", Fate.LATER, "not due yet")
    assert as_of(later, began) == later
    assert as_of(replace(portion(4, "o"), due_at=None), began).fate is Fate.GOES


def test_image_without_a_deletion_time_was_due_before_any_pass() -> None:
    """It is read as due now, and so after the pass began."""
    known = Knowledge(
        Policy(scrub_time=HOUR, claim_timeout=timedelta(minutes=2)),
        AgentReports(),
        lambda row: row.store or "?",
        check,
    )
    row = location()._replace(deleted_at=None)
    seen = Listed(image("deleted", deleted_at=None), "name", (row,), NOW)
    (one,) = portions(seen, known)
    assert one.fate is Fate.GOES
    assert as_of(one, NOW - timedelta(seconds=1)) == one
