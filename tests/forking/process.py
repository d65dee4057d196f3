# SPDX-License-Identifier: Apache-2.0
"""A program that a forking server runs for this process."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from typing import BinaryIO

from tests.forking import launcher


class ForkedProcess:
    """A program in a process of its own, with the interface of `subprocess.Popen`.

    It is killed if this process ends, or forgets it.

    :param python: the interpreter of the server.
    :param arguments: what follows the interpreter on a command line.
    :param stdin: what it reads.
    :param stdout: where its output goes.
    :param stderr: where its errors go.
    :raises ConnectionError: the server is gone.
    """

    def __init__(
        self,
        python: Path,
        arguments: Sequence[object],
        stdin: BinaryIO,
        stdout: BinaryIO,
        stderr: BinaryIO,
    ) -> None:
        self._connection, self.pid = launcher.ask(
            f"{python}.socket",
            [str(argument) for argument in arguments],
            (stdin.fileno(), stdout.fileno(), stderr.fileno()),
        )
        self._code: int | None = None
        self._lock = threading.Lock()

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal, none while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        """Return the exit code, none while it runs."""
        with self._lock:
            if self._code is None and connection.wait([self._connection], 0):
                with self._connection:
                    self._code = launcher.code_in(self._connection)
            return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends, and return its exit code.

        :raises subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        if self._code is None:
            connection.wait([self._connection], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("evscrub", timeout or 0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)
