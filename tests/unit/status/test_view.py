# SPDX-License-Identifier: Apache-2.0
"""What the page and ``evscrub list`` are told."""

import json
from typing import Any

from evscrub.domain.verdict import Outcome
from evscrub.status.registry_count import Pending, RegistryCount, SpaceCount
from evscrub.status.snapshot import SHOWN, History, Sources, take
from evscrub.status.view import lines, view
from tests.unit.agent_parts import NOW, FakeClock, make_busy, make_sources, trouble

COUNT = RegistryCount(
    NOW - 7,
    Pending(5, 500, 1),
    3,
    2,
    (("an owner", Pending(3, 300, 1)), (None, Pending(2, 200, 0))),
    SpaceCount(NOW - 9, {"fast": 400, "slow": 0, None: 100}),
)


def seen(sources: Sources, count: RegistryCount | None = COUNT) -> dict[str, Any]:
    statistics = sources.statistics()
    history = History(statistics.scrubber.record)
    history.step(NOW, 1, statistics.scrubber.record)
    shown = view(statistics, take(sources), history.points, count)
    # As a browser gets it.
    read: dict[str, Any] = json.loads(json.dumps(shown))
    return read


def test_an_agent_that_did_nothing_can_be_shown() -> None:
    shown = seen(make_sources(FakeClock()), None)
    assert shown["space"] is None
    assert shown["stores"] == []


def test_what_is_shown_is_what_is() -> None:
    sources = make_sources(FakeClock())
    make_busy(sources)
    shown = seen(sources)
    # The failed ones do not count as waiting.
    assert (shown["queue"]["waiting"], shown["queue"]["awaiting_retry"]) == (10, 3)
    assert shown["queue"]["ready"] == 8
    assert shown["done"]["images"] == 7
    assert shown["parked"]["total"] == 2
    assert [image["id"] for image in shown["parked"]["shown"]] == ["p2", "p1"]
    assert shown["in_use"]["total"] == 1
    assert shown["retrying"] == [{"store": "fast", "reason": "timeout", "images": 1}]
    assert shown["damaged"]["total"] == 1
    assert shown["lateness"]["most"] == 400
    fast, slow = shown["stores"]
    assert (fast["breaker"], fast["reason"]) == ("blown", "its directory is missing")
    assert (slow["breaker"], slow["reason"], slow["slowed"]) == ("closed", "", True)
    assert (fast["owners_stopped"], slow["owners_stopped"]) == (0, 1)
    assert (fast["gone"], fast["not_found"], fast["bytes"]) == (6, 2, 6000)
    assert shown["space"]["owners"][1]["owner"] is None
    assert (shown["space"]["total"]["images"], shown["space"]["later"]) == (5, 2)
    assert shown["space"]["due"] == 3
    assert (fast["pending_bytes"], slow["pending_bytes"]) == (400, 0)
    assert shown["space"]["age"] == 7
    assert (shown["bus"]["last_age"], shown["sweep"]["last_age"]) == (3, 30)
    assert shown["settings"]["horizon"] == 7200


def test_only_so_many_images_are_named() -> None:
    sources = make_sources(FakeClock())
    record = sources.scrubber._record
    for number in range(1000):
        record.failed(f"p{number}", trouble(Outcome.CONFIGURATION, "bad_url", parked=True))
        record.damaged[f"d{number}"] = "why"
    shown = seen(sources)
    for kind in ("parked", "damaged"):
        assert shown[kind]["total"] == 1000
        assert len(shown[kind]["shown"]) == SHOWN


def test_all_in_trouble_are_told_line_by_line() -> None:
    sources = make_sources(FakeClock())
    make_busy(sources)
    scrubber = sources.scrubber
    found = lines(scrubber.statistics().lanes, scrubber.images_in_trouble())
    told = [json.loads(line) for line in found]
    assert told.pop(0) == {
        "store": "fast",
        "state": "blown",
        "reason": "its directory is missing",
    }
    assert {one["id"]: one["state"] for one in told} == {
        "p1": "parked",
        "p2": "parked",
        "u1": "in use",
        "r1": "retrying",
        "d1": "damaged",
    }
