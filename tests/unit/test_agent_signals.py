# SPDX-License-Identifier: Apache-2.0
"""Signals that come before the agent handles them, and a reload that fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: A process of its own, since a signal goes to whichever thread does not block it.
PROGRAM = """\
import argparse, os, signal
import anyio
from evscrub.config import loader
from evscrub.agent import Agent
from evscrub.commands import agent as command

def load_for(arguments):
    os.kill(os.getpid(), signal.SIGHUP)
    raise loader.ConfigError("loaded")

loader.load_for = load_for
try:
    command.main(argparse.Namespace())
except loader.ConfigError as error:
    print(error)
agent = Agent.__new__(Agent)

async def main():
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            agent.reload = {reload}
            agent.stop = tasks.cancel_scope.cancel
            tasks.start_soon(agent.handle_signals)

def defect():
    os.kill(os.getpid(), signal.SIGTERM)
    raise RuntimeError("a defect")

anyio.run(main)
print("reloaded")
"""


@pytest.mark.costly
def test_it_waits_until_the_agent_has_started() -> None:
    """To load the stores takes ten seconds where one hangs, and the signal would end the agent."""
    ended = run(reload="tasks.cancel_scope.cancel")
    assert (ended.returncode, ended.stdout) == (0, "loaded\nreloaded\n"), ended.stderr


@pytest.mark.costly
def test_a_reload_that_raises_does_not_end_the_agent() -> None:
    ended = run(reload="defect")
    assert (ended.returncode, ended.stdout) == (0, "loaded\nreloaded\n"), ended.stderr


def run(reload: str) -> subprocess.CompletedProcess[str]:
    """Send a SIGHUP to an agent that has only this reload."""
    program = PROGRAM.replace("{reload}", reload)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
