# SPDX-License-Identifier: Apache-2.0
"""When what many images have in common is logged."""

import itertools
import logging
import math
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from evscrub.telemetry.group_log import FIRST_SECONDS, REPEAT_SECONDS, GroupLine, GroupLog


def test_images_that_come_together_are_one_line() -> None:
    log = GroupLog()
    for number in range(1200):
        log.add("a", logging.WARNING, f"i{number}", "parked", "detail", number / 1200)
    assert list(log.due(0.99)) == []
    assert log.next_due == FIRST_SECONDS
    line = "1200 images are parked; one of them is i0: detail"
    assert list(log.due(1.0)) == [GroupLine(logging.WARNING, line)]
    assert log.next_due == math.inf
    log.add("a", logging.WARNING, "late", "parked", "why", 2.0)
    log.add("b", logging.INFO, "other", "in use", "", 2.0)
    assert list(log.due(3.0)) == [GroupLine(logging.INFO, "Image other is in use")]
    assert log.next_due == 1.0 + REPEAT_SECONDS
    assert list(log.due(math.inf)) == [GroupLine(logging.WARNING, "Image late is parked: why")]


def test_a_later_line_counts_what_the_first_did_not() -> None:
    log = GroupLog()
    said = []
    for at in (0.0, REPEAT_SECONDS):
        log.add("a", logging.INFO, "x", "parked", "of x", at)
        log.add("a", logging.INFO, "y", "parked", "of y", at)
        said += [line.text for line in log.due(at + REPEAT_SECONDS)]
    assert said == [
        "2 images are parked; one of them is x: of x",
        "2 more images are parked; one of them is x: of x",
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.integers(0, 120).map(lambda quarters: quarters / 4),
            st.booleans(),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_every_image_counts_once_and_no_group_is_told_more_often_than_once_a_minute(
    steps: Iterable[tuple[str, float, bool]],
) -> None:
    log, now = GroupLog(), 0.0
    added = {"a": 0, "b": 0}
    told: dict[str, list[tuple[float, int]]] = {"a": [], "b": []}

    def look(now: float) -> None:
        for line in log.due(now):
            group = line.text.partition(" are ")[2][:1] or line.text[-1]
            count = 1 if line.text.startswith("Image ") else int(line.text.split()[0])
            told[group].append((now, count))

    for group, pause, looks in steps:
        now += pause
        log.add(group, logging.INFO, "i", group, "", now)
        added[group] += 1
        if looks:
            look(now)
    for lines in told.values():
        times = [at for at, _ in lines]
        assert all(later - sooner >= REPEAT_SECONDS for sooner, later in itertools.pairwise(times))
    look(math.inf)
    assert {group: sum(count for _, count in lines) for group, lines in told.items()} == added
