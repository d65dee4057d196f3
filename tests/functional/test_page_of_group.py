# SPDX-License-Identifier: Apache-2.0
"""The group of agents on the status page, in a browser."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from evscrub.coordination.statistics import GroupState, GroupStatistics
from evscrub.intake.sweep import SweepReport, SweepStatistics
from evscrub.status.service import load_page
from evscrub.status.snapshot import take
from evscrub.status.view import view
from tests.functional.browser import Browser
from tests.functional.test_status import CONTRAST
from tests.unit.agent_parts import NOW, SETTINGS, FakeClock, Saying, make_group, make_sources
from tests.unit.commands.fake_agents import http_server

SWEPT = SweepReport(full=True, found=0, added=0, seconds=0.1)


class Site:
    """An agent's status page with a status that tests choose."""

    def __init__(self) -> None:
        self.address = ""
        self._status = b"{}"

    def show(self, group: GroupStatistics | None, consumers: int | None, **settings: Any) -> None:
        settings = {"rate": 50.0, "concurrency": 16} | settings
        sources = make_sources(FakeClock(), group, consumers, replace(SETTINGS, **settings))
        cast(Saying, sources.sweep).given = SweepStatistics(1, 0, False, NOW, SWEPT)
        statistics = sources.statistics()
        if group is not None and group.share:
            own = sources.scrubber.statistics().configured.of_share(group.share)
            statistics = replace(statistics, scrubber=replace(statistics.scrubber, settings=own))
        self._status = json.dumps(view(statistics, take(sources), (), None)).encode()

    def respond(self, path: str, _: bytes) -> tuple[int, bytes]:
        return 200, self._status if path == "/status" else load_page().html.encode()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    with http_server(made.respond) as made.address:
        yield made


THIRDS = make_group("1/3", "1/3", "1/3")
CASES: dict[str, tuple[GroupStatistics | None, int | None, dict[str, Any], list[str]]] = {
    "one": (make_group("1"), 1, {}, ["1 member; 1 agent consumes", "1, 50/s", "(this agent)"]),
    "three": (
        THIRDS,
        3,
        {},
        [
            "evscrub.default; 3 members",
            "controller2, process 4002",
            "16 at a time, 17/s (1/3 of 50/s)",
        ],
    ),
    "twelve": (make_group(*["1/12"] * 12), 12, {}, ["12 members", "controller11, process 4011"]),
    "left": (
        make_group("1/2", "1/2", "1/3", gone=1),
        None,
        {},
        ["2 members", "left; seen 2 min ago"],
    ),
    "away": (
        replace(THIRDS, state=GroupState.AWAY, contact_at=NOW - 90),
        3,
        {},
        ["Coordinator away", "uses 1/3 of the limits", "; coordinator away; 3 members"],
    ),
    "joining": (
        make_group(state=GroupState.JOINING, contact_at=None),
        2,
        {},
        ["Coordinator not reached", "Nothing is scrubbed", "no share yet of 16 at a time, 50/s"],
    ),
    "waiting": (make_group("0", "1"), 2, {}, ["Waiting for a share", "none yet"]),
    "fewer": (THIRDS, 5, {}, ["Fewer members", "5 agents consume from the bus"]),
    "unreadable": (make_group("0", None), 2, {}, ["Unknown share", "not readable"]),
    "alone": (None, 3, {}, ["Each agent by itself", "3 times as much", "each by itself; 3 agents"]),
    "no limit": (None, 3, {"rate": 0.0}, ["All is well", "each by itself; 3 agents consume"]),
    "unknown": (None, None, {}, ["Agents", "each by itself"]),
}


def test_group_is_shown(site: Site) -> None:
    """In each state; with EVSCRUB_SCREENSHOTS, in each window."""
    keep = os.environ.get("EVSCRUB_SCREENSHOTS")
    windows = tuple(itertools.product((390, 1280), (False, True)))
    with Browser() as page:
        for number, (name, (group, consumers, settings, wanted)) in enumerate(CASES.items()):
            site.show(group, consumers, **settings)
            for width, dark in windows if keep else windows[number % 4 :][:1]:
                place = f"?{name.replace(' ', '-')}-{width}"
                page.open(f"http://{site.address}/{place}", width=width, dark=dark)
                page.wait(f"location.search === '{place}'")
                page.wait("document.querySelector('#facts dd') !== null")
                text = page.value("document.body.innerText")
                for words in wanted:
                    assert words in text, (name, text)
                assert page.value("document.getElementById('group').hidden") is (group is None)
                assert page.value("document.documentElement.scrollWidth") <= width
                assert page.value(CONTRAST) == ""
                if keep:
                    page.screenshot(
                        Path(keep) / f"{name}-{width}-{'dark' if dark else 'light'}.png"
                    )
        assert page.complaints == []
