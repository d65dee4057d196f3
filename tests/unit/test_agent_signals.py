# SPDX-License-Identifier: Apache-2.0
"""A SIGHUP that comes before the agent handles it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
            agent.reload = tasks.cancel_scope.cancel
            tasks.start_soon(agent.handle_signals)

anyio.run(main)
print("reloaded")
"""


def test_it_waits_until_the_agent_has_started() -> None:
    """To load the stores takes ten seconds where one hangs, and the signal would end the agent."""
    program = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    root = Path(__file__).parents[2]
    ended = subprocess.run(program, cwd=root, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "loaded\nreloaded\n"), ended.stderr
