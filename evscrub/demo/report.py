# SPDX-License-Identifier: Apache-2.0
"""Print the result of the demo, and commands to continue with."""

import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.text import Text

from evscrub.demo.frame import lateness, size
from evscrub.demo.images import STORM_OWNER, Fate
from evscrub.demo.play import Outcome
from evscrub.demo.stage import Stage

_MOST_WRONG = 5


def title(stage: Stage) -> str:
    """Return a line with the parts and settings of the demo."""
    return (
        f"Glance {version('glance')}, {stage.database}, {stage.bus},"
        f" scrub time {stage.scrub_time} s, at most {stage.rate:g} deletes/s"
    )


def report(console: Console, outcome: Outcome) -> bool:
    """Print the result of the demo; return whether all checks passed."""
    good = not any(check.wrong for check in outcome.checks)
    plans = outcome.plans.values()
    deleted = [plan for plan in plans if plan.fate is not Fate.KEPT]
    headline = (
        "Every deleted image's data is gone, and every kept image is untouched."
        if good
        else "FAILED: see below."
    )
    _print(console, "")
    _print(console, f" {headline}", "bold green" if good else "bold red")
    _print(console, "")
    reclaimed = sum(scrubbed.size_bytes for scrubbed in outcome.scrubbed.values())
    late = {fate: _late(outcome, fate) for fate in Fate}
    storm, lost = late[Fate.STORM], late[Fate.LOST]
    for name, value in (
        ("images", f"{len(plans)} uploaded, {len(deleted)} deleted through the API"),
        ("reclaimed", size(reclaimed)),
        ("late by", f"{lateness(late[Fate.DELETED])}   {len(late[Fate.DELETED])} deleted in turn"),
        ("", f"{lateness(storm)}   {len(storm)} of {STORM_OWNER}'s at once"),
        ("", f"{lateness(lost)}   1 whose notification was dropped"),
        ("took", f"{outcome.seconds:.0f} s with Glance running"),
    ):
        _print(console, f" {name:<11} {value}")
    _print(console, "")
    for check in outcome.checks:
        _print_check(console, check.says, check.wrong)
    return good


def _late(outcome: Outcome, fate: Fate) -> list[float]:
    return [
        scrubbed.late_seconds
        for image_id, scrubbed in outcome.scrubbed.items()
        if outcome.plans[image_id].fate is fate
    ]


def _program() -> str:
    """Return the shell command of this evscrub, which may not be on the path."""
    script = Path(sys.executable).with_name("evscrub")
    return (
        shlex.quote(str(script)) if script.exists() else f"{shlex.quote(sys.executable)} -m evscrub"
    )


def print_commands(console: Console, stage: Stage) -> None:
    """Print commands to paste."""
    folder = stage.folder
    _print(
        console,
        f"""
 Everything runs until Ctrl-C, and deleted data is kept for {stage.scrub_time} s.
 In another terminal:

export GLANCE={stage.url}/v2/images FOLDER={folder}
ID=$(cat /proc/sys/kernel/random/uuid)
# create an image, upload a megabyte of data, delete the image
curl -s $GLANCE -H 'Content-Type: application/json' -d \\
  '{{"id": "'$ID'", "name": "mine", "disk_format": "raw", "container_format": "bare"}}'; echo
head -c 1000000 /dev/urandom | curl -s -X PUT $GLANCE/$ID/file \\
  -H 'Content-Type: application/octet-stream' --data-binary @-
curl -s -X DELETE $GLANCE/$ID
# list the data: it exists for {stage.scrub_time} s, then it is gone
ls -l $FOLDER/data/*/$ID
# or undo the delete before that
{_program()} restore --config-file $FOLDER/{stage.agent_config.name} $ID

 data            {folder}/data
 database        {stage.glance.database_url if stage.has_own_database else stage.database}
 configuration   {stage.agent_config}
                 {folder / "glance-api.conf"}
 logs            {stage.agent_log}
                 {stage.glance.log_path}
""",
    )


def _print_check(console: Console, says: str, wrong: Sequence[str]) -> None:
    mark = "ok" if not wrong else "NO"
    line = Text(f" {mark}  ", "green" if not wrong else "bold red")
    console.print(line + Text(says, "" if not wrong else "bold"), soft_wrap=True)
    for found in wrong[:_MOST_WRONG]:
        _print(console, f"       {found}", "red")
    if len(wrong) > _MOST_WRONG:
        _print(console, f"       and {len(wrong) - _MOST_WRONG} more", "red")


def _print(console: Console, line: str, style: str = "") -> None:
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
