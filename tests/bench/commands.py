# SPDX-License-Identifier: Apache-2.0
"""Commands: how long an operator waits for one."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.bench.kit.lab import Lab
from tests.bench.kit.results import Metric, Report
from tests.bench.kit.scale import Scale, tell
from tests.bench.kit.seed import Batch

_IMAGES = 10
_TURNS = 5
_DEADLINE_SECONDS = 60.0
#: Seconds that each may take.
_GOALS = {"--help": 0.25, "list": 0.8}


def run(lab: Lab, scale: Scale) -> Report:
    report = Report(
        "commands",
        "Commands: from their start to their end",
        metrics=(Metric("seconds", "seconds", 2),),
        notes=[f"{_IMAGES} images are pending, on MariaDB; each round is the best of {_TURNS}"],
    )
    site = lab.site(lab.databases[0])
    site.lay(Batch(_IMAGES, age_seconds=10.0), files=False)
    config = site.agent_config({"DEFAULT": {"scrub_time": 3600}})
    commands = {"--help": ["--help"], "list": ["--config-file", str(config), "list"]}
    for turn in scale.turns:
        for name, arguments in commands.items():
            tell(f"round {turn + 1}: evscrub {name}")
            best = min(_seconds(arguments) for _ in range(_TURNS))
            report.add("evscrub", name, seconds=best)
    report.goals = [
        f"evscrub {name} within {goal} s: {report.median('evscrub', name, 'seconds') or 0.0:.2f} s"
        for name, goal in _GOALS.items()
    ]
    return report


def _seconds(arguments: list[str]) -> float:
    """Return how long a command takes whose modules are compiled."""
    environment = {**os.environ}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "evscrub", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        timeout=_DEADLINE_SECONDS,
        check=True,
    )
    return time.monotonic() - began
