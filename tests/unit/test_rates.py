# SPDX-License-Identifier: Apache-2.0
"""What the moments of requests say of a rate."""

import pytest

from tests.rates import (
    Window,
    busiest,
    count_between,
    longest_way,
    most_above,
    most_within,
    reached,
)

_STEADY = [number / 10 for number in range(100)]


def test_most_above_is_zero_at_just_the_rate() -> None:
    # A burst of 3, then one each tenth of a second.
    times = [0.0, 0.0, 0.0, *(number / 10 for number in range(1, 50))]
    assert most_above(times, 10.0, 3.0) == pytest.approx(0.0)
    assert most_above(times, 10.0, 1.0) == pytest.approx(2.0)


def test_most_above_finds_a_window_in_the_middle() -> None:
    times = [0.0, 10.0, 20.0, 20.01, 20.02, 30.0]
    assert most_above(times, 1.0, 1.0) == pytest.approx(2 - 0.02)
    window = busiest(times, 1.0, 1.0)
    assert (window.since, window.until) == (20.0, 20.02)


def test_busiest_window_may_have_one_request() -> None:
    assert busiest([5.0], 1.0, 1.0) == Window(5.0, 5.0, 0.0)


def test_longest_way_is_from_the_look_to_the_delete_of_one_object() -> None:
    steps = [(0.0, "HEAD", "a"), (0.5, "HEAD", "b"), (0.7, "DELETE", "b"), (1.0, "DELETE", "a")]
    assert longest_way(steps, 5.0) == 1.0
    assert longest_way(steps, 0.9) == pytest.approx(0.2)
    assert longest_way([(0.0, "DELETE", "a"), (5.0, "HEAD", "a")], 9.0) == 0.0


def test_most_within_counts_the_busiest_window() -> None:
    assert most_within([0.0, 1.0, 1.5, 1.9, 2.1, 9.0], 1.0) == 3
    assert most_within([], 1.0) == 0


def test_window_of_a_second_has_what_came_before_its_end() -> None:
    assert most_within([0.0, 1.0, 2.0], 1.0) == 1


def test_count_between_leaves_out_the_end() -> None:
    assert count_between(_STEADY, 1.0, 2.0) == 10
    assert count_between(_STEADY, 20.0, 30.0) == 0


def test_reached_is_where_a_whole_window_keeps_to_the_rate() -> None:
    slow_first = [*(float(number) for number in range(5)), *(5 + at for at in _STEADY)]
    at = reached(slow_first, 10.0, 0.0, 15.0, 2.0)
    assert at == pytest.approx(5.0)


def test_reached_is_none_where_no_window_does() -> None:
    assert reached(_STEADY, 11.0, 0.0, 10.0, 2.0) is None
    # The window would end later than was looked.
    assert reached(_STEADY, 10.0, 9.0, 10.0, 2.0) is None
