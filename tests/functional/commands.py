# SPDX-License-Identifier: Apache-2.0
"""Runs the command line in processes of its own, forked from one that has imported it already.

The demo and DevStack suites, and the chaos suite for agents whose clock is off, start the real
program.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.forking import EvscrubPython
from tests.forking.process import ForkedProcess
from tests.sharing import shared


class Command(ForkedProcess):
    """A command that runs in a process of its own, with the interface of `subprocess.Popen`.

    :param arguments: what follows `evscrub` on the command line.
    :param stdout: the file that its output is added to.
    :param stderr: the file that its errors are added to.
    :param module: what runs it, as in `python -m`.
    """

    def __init__(
        self, arguments: Sequence[object], stdout: Path, stderr: Path, module: str = "evscrub"
    ) -> None:
        with (
            Path(os.devnull).open("rb") as nothing,
            stdout.open("ab") as output,
            stderr.open("ab") as errors,
        ):
            python = shared(EvscrubPython).python
            super().__init__(python, ["-m", module, *arguments], nothing, output, errors)


def run(
    *arguments: object, timeout: float = 600.0, module: str = "evscrub"
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    :param arguments: what follows `evscrub` on the command line.
    :param module: what runs it, as in `python -m`.
    :raises subprocess.TimeoutExpired: it still runs after `timeout` seconds.
    """
    with TemporaryDirectory(prefix="evscrub-command-") as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        command = Command(arguments, stdout, stderr, module)
        try:
            code = command.wait(timeout)
        finally:
            command.kill()
        return subprocess.CompletedProcess("evscrub", code, stdout.read_text(), stderr.read_text())
