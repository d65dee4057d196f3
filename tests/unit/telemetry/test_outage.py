# SPDX-License-Identifier: Apache-2.0
"""Outages are told at the change and once a minute, and libraries do not tell them too."""

import contextlib
import logging

import pytest
from oslo_log import formatters

from evscrub.telemetry.outage import Outage
from evscrub.telemetry.quiet import Demote, is_raised


class Told:
    """An outage with a clock that a test sets, and what it told."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self.now = 1000.0
        self.outage = Outage("The registry", "Nothing is claimed", lambda: self.now)
        self._caplog = caplog

    @property
    def lines(self) -> list[str]:
        lines = [f"{one.levelname} {one.getMessage()}" for one in self._caplog.records]
        self._caplog.clear()
        return lines


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    return Told(caplog)


def test_an_outage_is_told_at_the_change_once_a_minute_and_at_its_end(told: Told) -> None:
    for _ in range(130):
        told.outage.away("refused")
        assert told.outage.is_on
        told.now += 1
    assert told.lines == [
        "WARNING The registry is away: refused. Nothing is claimed",
        "WARNING The registry has been away for 60 s: refused",
        "WARNING The registry has been away for 120 s: refused",
    ]
    told.outage.back()
    told.outage.back()
    assert not told.outage.is_on
    assert told.lines == ["INFO The registry is back after 130 s"]


def test_what_comes_and_goes_is_not_told_each_time(told: Told) -> None:
    for _ in range(24):
        told.outage.away("refused")
        told.now += 2.5
        told.outage.back()
        told.now += 2.5
    assert len(told.lines) == 4  # away and back, at first and a minute later


def test_a_second_outage_is_told_at_once(told: Told) -> None:
    told.outage.away("refused")
    told.outage.back()
    assert len(told.lines) == 2
    told.now += 11
    told.outage.away("refused")
    assert len(told.lines) == 1


def test_what_is_there_is_not_told_to_be_back(told: Told) -> None:
    told.outage.back()
    assert told.lines == []


def test_an_exception_at_hand_is_not_added_to_the_line(told: Told) -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            summaries.append(formatters._get_error_summary(record))

    summaries: list[str] = []
    handler = Handler()
    logger = logging.getLogger("evscrub.telemetry.outage")
    logger.addHandler(handler)
    error = ConnectionError()
    with contextlib.suppress(ConnectionError):
        try:
            raise error
        finally:
            logger.warning("oslo.log adds it to this one")
            told.outage.away("refused")
            logger.removeHandler(handler)
    assert len(summaries) == 2
    assert "ConnectionError" in summaries[0]
    assert not summaries[1]


def record(name: str, level: int, *, raised: bool = False) -> logging.LogRecord:
    info = (ValueError, ValueError("x"), None) if raised else None
    return logging.LogRecord(name, level, "", 0, "text", (), info)


@pytest.mark.parametrize(
    ("name", "raised", "wanted"),
    [
        ("sqlalchemy.pool.impl.QueuePool", True, True),
        ("oslo_db.sqlalchemy.exc_filters", True, True),
        ("oslo_db.api", True, True),
        ("oslo_db.api", False, False),
        ("sqlalchemy.pool.impl.QueuePool", False, False),
        ("sqlalchemy.pooling", True, False),
        ("evscrub.intake.sweep", True, False),
    ],
)
def test_what_the_databases_libraries_tell_beside_what_they_raise(
    name: str, raised: bool, wanted: bool
) -> None:
    assert is_raised(record(name, logging.ERROR, raised=raised)) == wanted


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_what_is_told_already_passes_at_debug_alone(level: int) -> None:
    ours = logging.getLogger("evscrub.telemetry.quiet")
    before = ours.level
    ours.setLevel(level)
    try:
        demote = Demote(lambda told: told.name == "loud")
        for _handler in range(2):  # each has a filter of its own
            loud, other = record("loud", logging.ERROR), record("other", logging.ERROR)
            assert demote.filter(loud) == demote.filter(loud) == (level == logging.DEBUG)
            assert (loud.levelno, loud.levelname) == (logging.DEBUG, "DEBUG")
            assert demote.filter(other)
            assert other.levelno == logging.ERROR
    finally:
        ours.setLevel(before)
