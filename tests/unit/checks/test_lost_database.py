# SPDX-License-Identifier: Apache-2.0
"""Checks whose database stops answering, or does not let them read."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from oslo_db import exception as db_exception

from evscrub.checks import registry, stores
from evscrub.checks.report import Findings, NotCheckedError
from evscrub.checks.subject import Subject

READING = [
    registry.backlog,
    registry.damage,
    stores.locations,
    stores.witnesses,
    stores.foreign,
]


def subject_of(error: Exception) -> Subject:
    def fail() -> Any:
        raise error

    conf: Any = SimpleNamespace(
        database=SimpleNamespace(connection="mysql+pymysql://glance:hidden@db/glance"),
        scrub_time=0,
    )
    database: Any = SimpleNamespace(reading=fail)
    subject = Subject(conf, schema_known=True)
    subject.reach(database)
    return subject


@pytest.mark.parametrize("check", READING)
def test_a_lost_database_is_raised(check: Callable[[Subject], Findings]) -> None:
    with pytest.raises(db_exception.DBConnectionError):
        check(subject_of(db_exception.DBConnectionError(OSError("gone"))))


@pytest.mark.parametrize("check", READING)
def test_a_check_that_may_not_read_says_why(check: Callable[[Subject], Findings]) -> None:
    denied = db_exception.DBError(Exception(1142, "SELECT command denied, hidden"))
    with pytest.raises(NotCheckedError, match=r"cannot be read \(1142 SELECT command denied, \*"):
        check(subject_of(denied))
