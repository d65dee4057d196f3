# SPDX-License-Identifier: Apache-2.0
"""When a bus that brings nothing is joined again."""

from itertools import pairwise

from evscrub.telemetry.silence import Silence


def test_a_quiet_night_is_no_silence() -> None:
    silence = Silence(0)
    assert not any(silence.is_suspect(now, 5, 0) for now in range(0, 36_000, 10))


def test_images_that_only_sweeps_find_make_it_one_when_it_lasts() -> None:
    silence = Silence(0)
    assert not silence.is_suspect(10, 5, 0)
    assert not silence.is_suspect(60, 5, 20)
    assert silence.is_suspect(70, 5, 20)
    assert not silence.is_suspect(80, 5, 20)


def test_a_few_of_them_are_another_agents() -> None:
    silence = Silence(0)
    assert not any(silence.is_suspect(now, 0, 9) for now in range(0, 1000, 10))
    assert silence.is_suspect(1000, 0, 10)


def test_while_anything_comes_it_is_none() -> None:
    silence = Silence(0)
    for number in range(1, 1000):
        assert not silence.is_suspect(10.0 * number, number, 100 * number)


def test_what_was_missed_before_a_message_came_counts_no_more() -> None:
    silence = Silence(0)
    assert not silence.is_suspect(10, 0, 500)
    assert not silence.is_suspect(20, 1, 500)
    assert not silence.is_suspect(1000, 1, 505)


def test_where_it_does_not_help_it_is_tried_seldom() -> None:
    silence = Silence(0)
    tries = [now for now in range(0, 3600, 10) if silence.is_suspect(now, 0, now)]
    assert len(tries) == 6
    assert all(after - before >= 600 for before, after in pairwise(tries))
