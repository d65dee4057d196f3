# SPDX-License-Identifier: Apache-2.0
"""A short run; `python -m tests.chaos` makes long ones."""

from pathlib import Path

from tests.chaos.plan import AGENT_FAULTS, OTHER_FAULTS, make_plan
from tests.chaos.run import run


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
