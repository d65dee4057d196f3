# SPDX-License-Identifier: Apache-2.0
"""That the proof of group rates finds what it is for; it runs by `python -m tests.coordination`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from tests.coordination.__main__ import line, parse
from tests.coordination.cases import CASES, LIMITS, NEED_HOSTS, NEED_SERVER
from tests.coordination.run import Outcome, Run
from tests.coordination.site import Limits, Site
from tests.functional.store_servers import Request

RATE, BURST = 10.0, 2.0


class Counted:
    """A site that has counted already."""

    def __init__(self, times: Sequence[float], *, pending: int = 1) -> None:
        self.limits = Limits(RATE, BURST, {})
        self.agents: list[object] = []
        self._times = times
        self._pending = pending

    def requests(self) -> list[Request]:
        return [
            Request(at, method, f"/{at}", 200, "agent0")
            for at in self._times
            for method in ("DELETE", "HEAD")
        ]

    def deletes(self) -> list[tuple[float, str]]:
        return [(at, "agent0") for at in self._times]

    def pending(self) -> int:
        return self._pending

    def end_agents(self) -> None:
        self.agents.clear()


def outcome(times: Sequence[float], *, pending: int = 1, slack: float = 0.1) -> Outcome:
    """Judge a run without agents, in which deletes came in at these times."""
    site = cast("Site", Counted(times, pending=pending))
    return Run("a case", site, None, seconds=1, membership_timeout=1, slack_seconds=slack).end()


def steady(rate: float, seconds: float = 20.0) -> list[float]:
    return [number / rate for number in range(int(seconds * rate))]


def test_just_the_rate_is_right() -> None:
    assert outcome(steady(RATE)).violations == []


@pytest.mark.parametrize(
    "times",
    [
        steady(RATE * 1.2),
        # All at once in the middle.
        sorted([*steady(RATE), *(10.0 + number / 1000 for number in range(8))]),
        # Twice the rate for a second, after a second of nothing: only a burst may be made up.
        sorted([*(at for at in steady(RATE) if not 5 < at < 6), *(6 + n / 20 for n in range(10))]),
    ],
)
def test_more_than_the_rate_is_found(times: Sequence[float]) -> None:
    assert any("above burst" in text for text in outcome(times).violations)


def test_nothing_is_proven_when_nothing_was_left_to_do() -> None:
    assert any("nothing is proven" in text for text in outcome(steady(RATE), pending=0).violations)


def test_line_has_what_was_found_and_what_is_wrong() -> None:
    found = Outcome(
        "killed", 3, 50.0, 49.5, 0.25, 12.5, 53, 1.0, ["0.0 s agent0 started"], ["too much"]
    )
    text = line("redis", found)
    assert text.splitlines()[0].split() == [
        *("redis", "killed", "3", "50.00", "49.50", "-1.00%", "0.25", "12.50", "53", "1.0")
    ]
    assert "agent0 started" in text
    assert "VIOLATED   too much" in text


def test_cases_are_known() -> None:
    assert set(CASES) >= NEED_SERVER | NEED_HOSTS | set(LIMITS)
    assert parse([]).case == list(CASES)
