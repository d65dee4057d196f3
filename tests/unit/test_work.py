# SPDX-License-Identifier: Apache-2.0
"""A claimed image: whether any data of it went."""

from datetime import datetime

import pytest

from evscrub.clock import Moment
from evscrub.delay_queue import Source
from evscrub.registry.claims import Claim
from evscrub.rules import ImageRow, Kind, LocationRow
from evscrub.verdict import GONE, NOT_FOUND, SHARED, Outcome, Verdict
from evscrub.work import Work

NOW = datetime(2026, 1, 1)
NOT_OURS = Verdict(Outcome.NOT_OURS, "read_only_store")
DOWN = Verdict(Outcome.TRANSIENT, "connection")


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
    row = LocationRow(1, "file:///x", "s", "pending_delete", True, NOW, NOW)
    claim = Claim(ImageRow("i", "o", 1, "deleted", True, NOW), Kind.PENDING, (row,), NOW)
    work = Work(claim, NOW, Moment(0, 0), 0.0, Source.EVENT)
    for verdict in verdicts:
        work.judged(row, "s", verdict, 0.0)
    assert work.data_went is went
