# SPDX-License-Identifier: Apache-2.0
"""A claimed image: whether any data of it went, and whether all that is left is there."""

from datetime import datetime

import pytest

from evscrub.clock import Moment
from evscrub.delay_queue import Source
from evscrub.registry.claims import Claim
from evscrub.rules import ImageRow, Kind, LocationRow
from evscrub.verdict import GONE, NOT_FOUND, SHARED, UNPROVEN, Outcome, Verdict
from evscrub.work import Work

NOW = datetime(2026, 1, 1)
NOT_OURS = Verdict(Outcome.NOT_OURS, "read_only_store")
DOWN = Verdict(Outcome.TRANSIENT, "connection")
ROW = LocationRow(1, "file:///x", "s", "pending_delete", True, NOW, NOW)


def claimed(kind: Kind) -> Work:
    claim = Claim(ImageRow("i", "o", 1, "deleted", True, NOW), kind, (ROW,), NOW)
    return Work(claim, NOW, Moment(0, 0), 0.0, Source.EVENT)


@pytest.mark.parametrize(
    ("verdicts", "went"),
    [
        ([GONE], True),
        ([NOT_FOUND], True),
        ([SHARED], False),
        ([NOT_OURS], False),
        ([DOWN], False),
        ([], False),
        ([GONE, SHARED], True),
        ([NOT_OURS, GONE], True),
    ],
)
def test_whether_data_went(verdicts: list[Verdict], went: bool) -> None:
    work = claimed(Kind.PENDING)
    for number, verdict in enumerate(verdicts):
        work.judged(ROW._replace(id=number), "s", verdict, 0.0)
    assert work.data_went is went


@pytest.mark.parametrize(
    ("verdicts", "why"),
    [
        ([], "no_location"),
        ([SHARED], "shared_url"),
        ([NOT_OURS], "read_only_store"),
        ([SHARED, NOT_OURS], "shared_url"),
    ],
)
def test_why_nothing_went(verdicts: list[Verdict], why: str) -> None:
    work = claimed(Kind.PENDING)
    for number, verdict in enumerate(verdicts):
        work.judged(ROW._replace(id=number), "s", verdict, 0.0)
    assert not work.data_went
    assert work.why_nothing_went == why


def test_what_is_taken_back_is_not_gone() -> None:
    work = claimed(Kind.PENDING)
    work.judged(ROW, "s", NOT_FOUND, 0.0)
    work.judged(ROW._replace(id=2), "s", GONE, 0.0)
    work.doubt()
    assert work.outcomes == {1: ("s", UNPROVEN), 2: ("s", GONE)}


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    ("verdict", "there"),
    [
        (None, True),
        (Verdict(Outcome.IN_USE, "in_use"), True),
        (Verdict(Outcome.CONFIGURATION, "bad_url"), True),
        (Verdict(Outcome.STORE_TROUBLE, "no_write_access"), True),
        (DOWN, False),
        (Verdict(Outcome.TRANSIENT, "throttled"), False),
        (Verdict(Outcome.UNKNOWN, "unexpected"), False),
    ],
)
def test_only_what_is_known_to_be_there_is_pending_again(
    kind: Kind, verdict: Verdict | None, there: bool
) -> None:
    """Of what was taken over nobody knows what its first owner did."""
    work = claimed(kind)
    if verdict is not None:
        work.judged(ROW, "s", verdict, 0.0)
    assert work.settlement().whole is (there and kind is Kind.PENDING)


def test_what_a_defect_met_may_be_gone() -> None:
    work = claimed(Kind.PENDING)
    work.give_up(("s", DOWN))
    assert not work.settlement().whole


def test_what_a_store_without_its_data_had_not_is_pending_again() -> None:
    work = claimed(Kind.PENDING)
    work.judged(ROW, "s", NOT_FOUND, 0.0)
    work.doubt()
    end = work.settlement()
    assert (end.gone, end.left, end.whole) == ([], [ROW.id], True)
