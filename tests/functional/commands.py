# SPDX-License-Identifier: Apache-2.0
"""Runs the command line in processes of its own, forked from one that has imported it already.

A start of Python that imports evscrub and what it needs takes a second of a processor, and the
tests start some hundred. The demo and DevStack suites, and the chaos suite for agents whose clock
is off, start the real program.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.forking import STORE_DRIVERS

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "evscrub.cli",
        "evscrub.commands.agent",
        "evscrub.commands.check",
        "evscrub.commands.keep",
        "evscrub.commands.list",
        "evscrub.commands.show",
        "oslo_messaging._drivers.impl_rabbit",
        "psycopg2",
        "pymysql",
        *STORE_DRIVERS,
        "tests.functional.commands",
    ]
)


class Command:
    """A command that runs in a process of its own, with the interface of `subprocess.Popen`.

    :param arguments: what follows `evscrub` on the command line.
    :param stdout: the file that its output is added to.
    :param stderr: the file that its errors are added to.
    :param imports: modules that it imports first.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        stdout: Path,
        stderr: Path,
        imports: Sequence[str] = (),
    ) -> None:
        words = [str(one) for one in arguments]
        self._process = _context.Process(
            target=_run,
            args=(words, str(stdout), str(stderr), dict(os.environ), tuple(imports)),
            daemon=True,
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal, none while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code, none while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends, and return its exit code.

        :raises subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("evscrub", timeout or 0)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(*arguments: object, timeout: float = 600.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    :param arguments: what follows `evscrub` on the command line.
    :raises subprocess.TimeoutExpired: it still runs after `timeout` seconds.
    """
    with TemporaryDirectory(prefix="evscrub-command-") as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        command = Command(arguments, stdout, stderr)
        try:
            code = command.wait(timeout)
        finally:
            command.kill()
        return subprocess.CompletedProcess("evscrub", code, stdout.read_text(), stderr.read_text())


def _run(
    arguments: list[str],
    stdout: str,
    stderr: str,
    environment: dict[str, str],
    imports: tuple[str, ...],
) -> None:
    """Become `python -m evscrub` with these arguments, as far as it can tell."""
    from evscrub import cli  # noqa: PLC0415 - chooses oslo.service's backend for its process

    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["evscrub", *arguments]
    for stream, path in ((0, os.devnull), (1, stdout), (2, stderr)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, stream)
        os.close(opened)
    random.seed()
    for name in imports:
        importlib.import_module(name)
    sys.exit(cli.main())
