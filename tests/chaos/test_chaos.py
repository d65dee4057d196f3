# SPDX-License-Identifier: Apache-2.0
"""A short run; `python -m tests.chaos` makes long ones."""

import signal
from pathlib import Path

from tests.chaos.plan import AGENT_FAULTS, OTHER_FAULTS, make_plan
from tests.chaos.rows import new_id
from tests.chaos.run import run
from tests.chaos.site import Site
from tests.chaos.store import COPIES
from tests.functional.agents import wait_for


def test_a_plan_is_its_seed() -> None:
    assert make_plan(3, 60) == make_plan(3, 60)
    assert make_plan(3, 60) != make_plan(4, 60)


def test_every_fault_is_drawn() -> None:
    kinds = {fault.kind for seed in range(20) for t in make_plan(seed, 60).faults for fault in t}
    assert kinds == {*AGENT_FAULTS, *OTHER_FAULTS}


def test_nothing_is_lost_nor_scrubbed_twice_nor_scrubbed_that_lives(tmp_path: Path) -> None:
    report = run(1, "mariadb", 55, tmp_path)
    assert not report.violations, f"{report}"
    assert report.deletes
    assert report.faults


def test_an_agent_that_slept_goes_on_with_nothing(tmp_path: Path) -> None:
    """It was stopped while the first of two locations was being deleted."""
    with Site("mariadb", tmp_path, agents=2, scrubber=False) as site:
        sleeper, other = site.agents
        image_id = new_id()
        copy = f"{COPIES}/{image_id}"
        for key in (image_id, copy):
            site.objects.put(key, b"data")
        site.rows.add(
            ("objects", site.objects.url(image_id)),
            ("copies", site.objects.url(copy)),
            image_id=image_id,
        )
        other.signal(signal.SIGSTOP)
        site.objects.gate.clear()
        site.rows.delete(image_id, ago=3600)
        wait_for("a delete", lambda: site.objects.deleting[sleeper.name])
        sleeper.signal(signal.SIGSTOP)
        site.objects.gate.set()
        other.signal(signal.SIGCONT)
        taken_over = ("deleted", ["deleted", "deleted"])
        wait_for("the takeover", lambda: site.rows.status(image_id) == taken_over, 60)
        asked = len(site.objects.requests)
        sleeper.signal(signal.SIGCONT)
        told = f"The claim of image {image_id} ran out"
        wait_for(
            "what the sleeper does",
            lambda: told in sleeper.log or len(site.objects.requests) > asked,
        )
        assert [r for r in site.objects.requests[asked:] if r.key == copy] == []
        assert site.rows.status(image_id) == taken_over
