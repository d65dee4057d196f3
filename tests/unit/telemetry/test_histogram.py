# SPDX-License-Identifier: Apache-2.0
"""Durations counted in buckets."""

import pytest

from evscrub.telemetry.histogram import Histogram


def test_a_spread_counts_into_its_buckets() -> None:
    durations = Histogram((1.0, 10.0))
    for seconds in (-1, 0, 1, 1.1, 10, 11):
        durations.add(seconds)
    assert durations.counts == [3, 2, 1]
    assert durations.total_seconds == pytest.approx(23.1)


def test_statistics_stay_as_they_were_taken() -> None:
    durations = Histogram((1.0, 10.0))
    durations.add(5)
    before = durations.statistics()
    durations.add(0.5)
    assert (before.counts, before.total_seconds) == ((0, 1, 0), 5.0)
    assert durations.statistics().counts == (1, 1, 0)
