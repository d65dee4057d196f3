# SPDX-License-Identifier: Apache-2.0
"""Durations counted in buckets."""

import pytest

from evscrub.telemetry.histogram import Spread


def test_a_spread_counts_into_its_buckets() -> None:
    spread = Spread((1.0, 10.0))
    for seconds in (-1, 0, 1, 1.1, 10, 11):
        spread.add(seconds)
    assert spread.counts == [3, 2, 1]
    assert spread.total_seconds == pytest.approx(23.1)


def test_statistics_stay_as_they_were_taken() -> None:
    spread = Spread((1.0, 10.0))
    spread.add(5)
    before = spread.statistics()
    spread.add(0.5)
    assert (before.counts, before.total_seconds) == ((0, 1, 0), 5.0)
    assert spread.statistics().counts == (1, 1, 0)
