# SPDX-License-Identifier: Apache-2.0
"""What the agent's process does before the agent runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: A process of its own, since it is about the whole process.
PROGRAM = """\
import argparse, gc
from evscrub.commands import agent as command

command.loader.load_for = lambda arguments: (None, None)
command.loader.start_logging = command.gmr_opts.set_defaults = lambda settings: None
command.gmr.TextGuruMeditation.setup_autorun = lambda *settings, **more: None
command.Agent = lambda *settings: None

def run(program):
    print(gc.get_freeze_count() > 10_000, gc.get_threshold(), flush=True)

command.anyio.run = run
command.main(argparse.Namespace())
"""


@pytest.mark.costly
def test_it_seldom_looks_for_unreachable_objects() -> None:
    program = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    root = Path(__file__).parents[3]
    ended = subprocess.run(program, cwd=root, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "True (10000, 10, 10)\n"), ended.stderr
