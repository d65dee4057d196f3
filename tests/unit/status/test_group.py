# SPDX-License-Identifier: Apache-2.0
"""What agents show of the group that shares their limits."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.core import Metric

from evscrub.coordination.statistics import GroupState, GroupStatistics
from evscrub.status import group_report, group_view
from evscrub.status.report import read
from evscrub.status.snapshot import take
from evscrub.status.view import view
from tests.unit.agent_parts import NOW, SETTINGS, FakeClock, make_group, make_sources

THIRDS = make_group("1/3", "1/3", "1/3")


def sharing(
    group: GroupStatistics | None, consumers: int | None, **settings: Any
) -> dict[str, Any]:
    """Return what an agent shows, as a client gets it."""
    sources = make_sources(FakeClock(), group, consumers, replace(SETTINGS, **settings))
    shown = view(sources.statistics(), take(sources), (), None)
    read_back: dict[str, Any] = json.loads(json.dumps(shown))
    return read_back


def problems(group: GroupStatistics | None, consumers: int | None, **settings: Any) -> list[str]:
    return list(group_report.problems(read(sharing(group, consumers, **settings)).sharing))


def test_members_are_told() -> None:
    group = make_group("1/2", "1/2", None, "1/3", gone=1)
    report = read(sharing(group, 3)).sharing
    assert report.consumers == 3
    assert report.group is not None
    told = report.group
    assert (told.name, told.state, told.share) == ("evscrub.default", "member", "1/2")
    assert (told.size, told.contact_seconds) == (3, 0)
    assert [(one.id, one.share) for one in told.members] == [
        ("controller0:4000:00000000", "1/2"),
        ("controller1:4001:00000001", "1/2"),
        ("controller2:4002:00000002", None),
        ("controller3:4003:00000003", "1/3"),
    ]
    assert [one.is_self for one in told.members] == [True, False, False, False]
    assert [one.is_present for one in told.members] == [True, True, True, False]
    assert [one.last_seen_seconds for one in told.members] == [0, 0, 0, 180]


@pytest.mark.parametrize(
    ("settings", "consumers", "is_alone"),
    [
        ({"rate": 50}, 2, True),
        ({"store_rate": {"a": 1}}, 2, True),
        ({"owner_rate": 1}, 2, True),
        ({"store_rate": {"a": 0}}, 2, False),
        ({}, 2, False),
        ({"rate": 50}, 1, False),
        ({"rate": 50}, 0, False),
        ({"rate": 50}, None, False),
    ],
)
def test_each_agent_by_itself(
    settings: dict[str, Any], consumers: int | None, is_alone: bool
) -> None:
    said = problems(None, consumers, **settings)
    assert len(said) == is_alone
    assert all("each agent by itself: each of the 2 agents" in text for text in said)
    assert not problems(make_group("1/2", "1/2"), consumers, **settings)


@pytest.mark.parametrize(
    ("group", "consumers", "said"),
    [
        (THIRDS, 3, []),
        (THIRDS, 2, []),
        (THIRDS, None, []),
        (make_group("0", "1"), 2, []),
        (THIRDS, 4, ["its group has 3 members, but 4 agents consume from the bus: 'evscrub"]),
        (make_group("1"), 2, ["its group has 1 member, but 2"]),
        (make_group("0", None), 2, ["a member of the group evscrub.default publishes no share"]),
        (make_group("1", None, gone=1), 1, []),
        (
            make_group(state=GroupState.JOINING, contact_at=None),
            3,
            ["the coordinator has not answered since it started, see its log and 'evscrub check':"],
        ),
        (
            replace(THIRDS, state=GroupState.AWAY, contact_at=NOW - 90),
            4,
            ["the coordinator has not answered for 1 min 30 s, see its log and 'evscrub check'"],
        ),
    ],
)
def test_problems_of_the_group(
    group: GroupStatistics, consumers: int | None, said: list[str]
) -> None:
    found = problems(group, consumers, rate=50)
    assert [text[: len(begin)] for text, begin in zip(found, said, strict=True)] == said


def test_an_agent_without_coordinator_says_what_it_uses() -> None:
    joining = replace(make_group("1/4"), state=GroupState.JOINING, members=(), contact_at=None)
    assert problems(joining, None)[0].endswith("it uses 1/4 of the limits")
    waiting = replace(make_group("0", "1"), state=GroupState.AWAY)
    assert problems(waiting, None)[0].endswith("it scrubs nothing")


def metrics(group: GroupStatistics | None, consumers: int | None) -> dict[str, float]:
    found: list[Metric] = list(
        group_view.metrics(make_sources(FakeClock(), group, consumers).statistics())
    )
    return {sample.name: sample.value for family in found for sample in family.samples}


def test_metrics_of_the_group() -> None:
    assert metrics(make_group("1/2", "1/2", "1/3", gone=1), 5) == {
        "evscrub_bus_consumers": 5,
        "evscrub_group_members": 2,
        "evscrub_group_share_ratio": 0.5,
        "evscrub_group_coordinator_up": 1,
        "evscrub_group_contact_timestamp_seconds": NOW,
    }
    assert metrics(replace(THIRDS, state=GroupState.AWAY), 3)["evscrub_group_coordinator_up"] == 0
    joining = metrics(make_group(state=GroupState.JOINING, contact_at=None), None)
    assert joining == {
        "evscrub_group_members": 0,
        "evscrub_group_share_ratio": 0,
        "evscrub_group_coordinator_up": 0,
    }
    assert metrics(None, 2) == {"evscrub_bus_consumers": 2}
    assert metrics(None, None) == {}
