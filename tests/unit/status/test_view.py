# SPDX-License-Identifier: Apache-2.0
"""What the page is told, and what it may do."""

import base64
import hashlib
import json
import re
from typing import Any

from evscrub.domain.verdict import Outcome
from evscrub.status import page, snapshot
from evscrub.status.forecast import forecast
from evscrub.status.history import POINTS, History
from evscrub.status.sources import Sources
from evscrub.status.space import Owned, Space
from evscrub.status.troubles import lines
from evscrub.status.view import view
from evscrub.telemetry.statistics import Record
from tests.unit.agent_parts import NOW, FakeClock, make_busy, make_sources, trouble

SPACE = Space(0.0, Owned(5, 500, 1), 2, (("an owner", Owned(3, 300, 1)), (None, Owned(2, 200, 0))))


def seen(sources: Sources, space: Space | None = SPACE) -> dict[str, Any]:
    history = History(sources.scrubber.record)
    history.step(NOW, 1)
    shown = view(sources, snapshot.take(sources), history, space)
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
    assert shown["queue"]["waiting"] == 10
    assert shown["queue"]["ready"] == 8
    assert shown["done"]["images"] == 7
    assert shown["parked"]["total"] == 2
    assert [image["id"] for image in shown["parked"]["shown"]] == ["p2", "p1"]
    assert shown["in_use"]["total"] == 1
    assert shown["damaged"]["total"] == 1
    assert shown["lateness"]["most"] == 400
    fast, slow = shown["stores"]
    assert (fast["breaker"], fast["reason"]) == ("blown", "its directory is missing")
    assert (slow["breaker"], slow["reason"], slow["slowed"]) == ("closed", "", True)
    assert (fast["owners_stopped"], slow["owners_stopped"]) == (0, 1)
    assert (fast["gone"], fast["not_found"], fast["bytes"]) == (6, 2, 6000)
    assert shown["space"]["owners"][1]["owner"] is None
    assert (shown["space"]["total"]["images"], shown["space"]["later"]) == (5, 2)
    assert shown["settings"]["horizon"] == 7200


def test_only_so_many_images_are_named() -> None:
    sources = make_sources(FakeClock())
    record = sources.scrubber.record
    for number in range(1000):
        record.troubles[f"p{number}"] = trouble(Outcome.CONFIGURATION, "bad_url", parked=True)
        record.damaged[f"d{number}"] = "why"
    shown = seen(sources)
    for kind in ("parked", "damaged"):
        assert shown[kind]["total"] == 1000
        assert len(shown[kind]["shown"]) == snapshot.SHOWN


def test_all_in_trouble_are_told_line_by_line() -> None:
    sources = make_sources(FakeClock())
    make_busy(sources)
    record = sources.scrubber.record
    told = [
        json.loads(line) for line in lines(sources.scrubber.lanes, record.troubles, record.damaged)
    ]
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


def test_a_forecast_has_every_waiting_image_once() -> None:
    sources = make_sources(FakeClock())
    for number in range(500):
        sources.queue.add(f"{number}", NOW + number**2 / 10)
    found = forecast(sources.queue, NOW)
    assert sum(found.counts) == 500
    assert len(found.counts) <= 48
    assert found.start <= NOW < found.start + found.width
    assert found.start + found.width * len(found.counts) >= NOW + 499**2 / 10


def test_the_forecast_of_an_empty_queue_is_empty() -> None:
    assert sum(forecast(make_sources(FakeClock()).queue, NOW).counts) == 0


def test_history_tells_what_each_step_brought_and_forgets_the_oldest() -> None:
    record = Record()
    record.scrubbed = 5  # before anybody looked
    history = History(record)
    for number in range(POINTS + 5):
        record.scrubbed += 2
        record.bytes_reclaimed["fast"] += 10
        record.late_seconds.extend((number, 0.5))
        history.step(NOW + number, 3)
    assert len(history.points) == POINTS
    assert history.points[-1] == (NOW + POINTS + 4, 2, 10, 3, POINTS + 4)


def test_the_page_runs_nothing_but_its_own_script() -> None:
    loaded = page.load()
    inline = re.findall(r"<(style|script)>(.*?)</\1>", loaded.html, re.DOTALL)
    assert [kind for kind, _ in inline] == ["style", "script"]
    for kind, text in inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in loaded.policy
    assert "default-src 'none'" in loaded.policy
    assert "unsafe" not in loaded.policy
    assert not re.search(r"\son\w+=|style=|https?://(?!www\.w3\.org/2000/svg)", loaded.html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", loaded.html)
