# SPDX-License-Identifier: Apache-2.0
"""A condition that lasts is logged at first and then no more often than allowed."""

from evscrub.telemetry.log_limit import LogLimit


def test_a_lasting_condition_is_logged_once_in_its_time() -> None:
    limit = LogLimit(60)
    assert [now for now in range(0, 200, 10) if limit.allows(now)] == [0, 60, 120, 180]


def test_a_line_that_must_come_restarts_the_time() -> None:
    limit = LogLimit(60)
    assert limit.allows(0)
    assert limit.allows(30, even_if_recent=True)
    assert not limit.allows(89)
    assert limit.allows(90)


def test_a_condition_that_is_over_is_logged_at_once_when_it_returns() -> None:
    limit = LogLimit(60)
    assert not limit.reset()
    assert limit.allows(0)
    assert limit.reset()
    assert not limit.reset()
    assert limit.allows(1)
