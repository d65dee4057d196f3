# SPDX-License-Identifier: Apache-2.0
"""Judges the rate that the agents of a group kept together, as the store saw it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.plan import AGENTS, GROUP_BURST, GROUP_RATE
from tests.chaos.store import Request
from tests.rates import Window, busiest, longest_way

#: How much longer one delete may take from its turn to the store than another, besides what is
#: measured of that.
_SLACK_SECONDS = 1.0
#: No machine is as slow as that.
_FROZEN_SECONDS = 5.0


@dataclass(frozen=True)
class GroupRate:
    """How agents kept their rate.

    :param window: the one that is most above ``burst + rate * t``.
    :param allowed: by how many deletes it may be.
    """

    window: Window
    allowed: float

    @property
    def is_exceeded(self) -> bool:
        """Whether the agents deleted more than they may."""
        return self.window.above > self.allowed

    def __str__(self) -> str:
        return (
            f"{self.window.above:.1f} deletes above burst + rate * t from {self.window.since:.2f}"
            f" to {self.window.until:.2f}, {self.allowed:.1f} allowed"
        )


def judge(requests: Sequence[Request], absences: Sequence[tuple[float, float]]) -> GroupRate:
    """Judge the deletes of agents.

    :param requests: those of agents, in any order, with a delete among them.
    :param absences: from when to when an agent was away; a request that it was in the middle of
        says nothing of the machine.
    """
    requests = sorted(requests, key=lambda request: request.at)
    steps = [
        (each.at, each.method, (each.who, each.key))
        for each in requests
        if not any(
            since <= each.at <= until + _FROZEN_SECONDS or since <= each.ended <= until
            for since, until in absences
        )
    ]
    way = longest_way(steps, _FROZEN_SECONDS)
    # Whoever was started after a kill is one more member until the killed one's membership expires.
    members = 2 * AGENTS
    return GroupRate(
        busiest([r.at for r in requests if r.method == "DELETE"], GROUP_RATE, GROUP_BURST),
        max(0.0, members - GROUP_BURST) + GROUP_RATE * (_SLACK_SECONDS + way),
    )
