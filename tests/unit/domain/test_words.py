# SPDX-License-Identifier: Apache-2.0
"""Numbers and durations as people read them."""

import pytest

from evscrub.domain.words import count, in_short, in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.0004, "0 ms"),
        (0.25, "250 ms"),
        (1, "1 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3 * 3600 + 20 * 60 + 5, "3 h 20 min"),
        (24 * 3600, "1 day"),
        (2 * 24 * 3600 + 3600, "2 days 1 h"),
        (2 * 24 * 3600 + 60, "2 days"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0s"),
        (59, "59s"),
        (-61, "-1m1s"),
        (3600, "1h"),
        (-(16 * 3600 + 30 * 60 + 59), "-16h30m"),
        (24 * 3600 + 60, "1d"),
        (400 * 24 * 3600 + 3600, "400d1h"),
    ],
)
def test_a_short_duration_has_no_space(seconds: int, words: str) -> None:
    assert in_short(seconds) == words


def test_a_count_has_the_right_noun() -> None:
    assert [count(0, "image"), count(1, "image"), count(2, "image")] == [
        "0 images",
        "1 image",
        "2 images",
    ]
    assert count(2, "copy", "copies") == "2 copies"
