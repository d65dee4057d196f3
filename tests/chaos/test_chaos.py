# SPDX-License-Identifier: Apache-2.0
"""A short run; `python -m tests.chaos` makes long ones."""

import signal
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from evscrub.demo.glance_config import GlanceConfig, write_config
from tests.chaos.group_rate import judge
from tests.chaos.plan import AGENT_FAULTS, GROUP_FAULTS, GROUP_RATE, OTHER_FAULTS, make_plan
from tests.chaos.rows import Rows, new_id
from tests.chaos.run import run
from tests.chaos.site import ChaosAgent, Sleep
from tests.chaos.store import BUCKET, COPIES, ObjectStore, Request
from tests.chaos.watch import Watch
from tests.functional.agents import wait_for
from tests.functional.glance_tables import TEMPLATES
from tests.sharing import shared


def test_a_plan_is_its_seed() -> None:
    assert make_plan(3, 60) == make_plan(3, 60)
    assert make_plan(3, 60) != make_plan(4, 60)


def test_every_fault_is_drawn() -> None:
    kinds = {fault.kind for seed in range(20) for t in make_plan(seed, 60).faults for fault in t}
    assert kinds == {*AGENT_FAULTS, *OTHER_FAULTS}


def test_every_fault_of_a_group_is_drawn() -> None:
    plans = [make_plan(seed, 60, group=True) for seed in range(20)]
    kinds = {fault.kind for plan in plans for track in plan.faults for fault in track}
    assert kinds == {*AGENT_FAULTS, *GROUP_FAULTS}


def _delete(at: float, seconds: float = 0.01) -> list[Request]:
    """Return the two requests of a delete."""
    key = f"{at}"
    return [
        Request(at, at, "agent0", "HEAD", key, 200),
        Request(at + seconds, at + seconds, "agent0", "DELETE", key, 204),
    ]


def _deletes(rate: float) -> list[Request]:
    return [request for number in range(100) for request in _delete(number / rate)]


def test_a_group_that_exceeds_its_rate_is_found() -> None:
    assert not judge(_deletes(GROUP_RATE), []).is_exceeded
    assert judge(_deletes(GROUP_RATE * 1.3), []).is_exceeded


def test_a_slow_machine_is_allowed_for_and_a_frozen_agent_is_not() -> None:
    late = [*_deletes(GROUP_RATE), *_delete(100.0, seconds=2.0)]
    usual = judge(_deletes(GROUP_RATE), []).allowed
    assert judge(late, []).allowed > usual + GROUP_RATE * 1.9
    assert judge(late, [(100.5, 101.5)]).allowed == usual


BEGUN = "About to delete image i from store copies\n"


@pytest.mark.parametrize(
    ("asleep", "awake", "found"),
    [
        ("", BEGUN, True),
        (BEGUN, "", False),
        (BEGUN, BEGUN, True),
        ("", BEGUN.replace("copies", "objects"), False),
        ("", f"The claim of image i expired\n{BEGUN}", False),
    ],
)
def test_a_sleeper_that_begins_the_next_delete_is_found(
    asleep: str, awake: str, *, found: bool
) -> None:
    """One that was stopped in the store call is not, however late its first request comes."""
    first = Request(100.0, 100.5, "agent0", "HEAD", "i", 200)
    second = Request(121.0, 121.0, "agent0", "HEAD", "copies/i", 404)
    sleeps = [Sleep(101.0, 120.0, len(asleep))]
    agent = SimpleNamespace(name="agent0", log=asleep + awake, sleeps=sleeps)
    site: Any = SimpleNamespace(
        agents=[agent],
        objects=SimpleNamespace(requests=[first, second]),
        rows=SimpleNamespace(rows=lambda *_: []),
    )
    watch = Watch(site, {})
    watch.judge_sleepers()
    assert [image_id for image_id, _ in watch.violations] == ["i"] * found


def test_the_store_tells_an_object_s_size() -> None:
    """Without it, nothing that is missing would ever be proven."""
    with ObjectStore(("agent",)) as objects:
        objects.put("key", b"20 bytes of an image")
        base = f"http://127.0.0.1:{objects.server_address[1]}/{BUCKET}"
        there, absent = httpx.head(f"{base}/key"), httpx.head(f"{base}/other")
    assert (there.status_code, there.headers["Content-Length"]) == (200, "20")
    assert absent.status_code == 404


def test_nothing_is_lost_nor_scrubbed_twice_nor_scrubbed_that_lives(tmp_path: Path) -> None:
    report = run(1, "mariadb", 40, tmp_path)
    assert not report.violations, f"{report}"
    assert report.deletes
    assert report.faults


def test_an_agent_that_slept_goes_on_with_nothing(tmp_path: Path) -> None:
    """It was stopped while the first of two locations was being deleted."""
    with ExitStack() as stack:
        objects = stack.enter_context(ObjectStore(("agent",), delay=0.2))
        glance = GlanceConfig(
            directory=tmp_path / "glance",
            port=0,
            database_url=shared(TEMPLATES["mariadb"]).copy("slept", tmp_path),
            transport_url="kombu+memory://",
            stores={"objects": "s3", "copies": "s3"},
            store_options={"objects": objects.options(BUCKET), "copies": objects.options(COPIES)},
        )
        write_config(glance)
        rows = Rows(glance.database_url)
        stack.callback(rows.engine.dispose)
        agents = []
        for name in ("agent0", "agent1"):
            folder = tmp_path / name
            folder.mkdir()
            agents.append(ChaosAgent(name, folder, glance, glance.database_url))
            stack.push(agents[-1])
            agents[-1].launch()
        for agent in agents:
            agent.wait_ready()
        sleeper, other = agents
        image_id = new_id()
        copy = f"{COPIES}/{image_id}"
        for key in (image_id, copy):
            objects.put(key, b"data")
        rows.add(
            ("objects", objects.url(image_id)), ("copies", objects.url(copy)), image_id=image_id
        )
        other.signal(signal.SIGSTOP)
        objects.gate.clear()
        rows.delete(image_id, ago=3600)
        wait_for("a delete", lambda: objects.deleting[sleeper.name])
        sleeper.signal(signal.SIGSTOP)
        objects.gate.set()
        other.signal(signal.SIGCONT)
        taken_over = ("deleted", ["deleted", "deleted"])
        wait_for("the takeover", lambda: rows.status(image_id) == taken_over)
        asked = len(objects.requests)
        sleeper.signal(signal.SIGCONT)
        told = f"The claim of image {image_id} expired"
        wait_for(
            "what the sleeper does", lambda: told in sleeper.log or len(objects.requests) > asked
        )
        assert [r for r in objects.requests[asked:] if r.key == copy] == []
        assert f"About to delete image {image_id} from store objects" in sleeper.log
        assert f"About to delete image {image_id} from store copies" in other.log
        assert rows.status(image_id) == taken_over
