# SPDX-License-Identifier: Apache-2.0
"""Runs what is measured in processes of its own, and reads what processes have used."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_TICKS = os.sysconf("SC_CLK_TCK")
_GRACE_SECONDS = 10.0
#: What a peer may say on its way, for whoever waits for it.
_MARKS = frozenset({"first", "half"})

Message = Mapping[str, Any]


def cpu_seconds(pid: int) -> float:
    """CPU time that a process, its children and those that it has waited for have used."""
    return sum(_own_cpu_seconds(number) for number in _tree(pid))


def rss_bytes(pid: int) -> int:
    """Resident memory of one process."""
    return _status_kb(pid, "VmRSS") * 1024


def peak_rss_bytes(pid: int) -> int:
    """The most resident memory that one process ever had."""
    return _status_kb(pid, "VmHWM") * 1024


def wake_ups(pid: int) -> int:
    """How often the threads of one process have waited for something and gone on."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


def _tree(pid: int) -> Iterable[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _tree(int(child))


def _own_cpu_seconds(pid: int) -> float:
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # it has ended: its parent has its time now
        return 0.0
    # The name, in parentheses, may hold anything; user, system and those of waited children.
    fields = line.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _status_kb(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


@dataclass(frozen=True, slots=True)
class Span:
    """What passed between a peer's "begin" and "end".

    :param seconds: of wall clock.
    :param cpu_seconds: of the peer's own process.
    :param server_cpu_seconds: of the servers that it used.
    :param peak_bytes: of the peer's resident memory, since its start.
    :param values: what the peer said itself.
    """

    seconds: float
    cpu_seconds: float
    server_cpu_seconds: float
    peak_bytes: float
    values: Message


class PeerError(RuntimeError):
    """A peer ended, or said nothing in time."""


class Peer:
    """A module under :mod:`tests.bench.peers` in a process of its own: a context manager.

    It says ``{"said": "begin", ...}`` and the like on its standard output, a line each.

    :param module: the module's name under ``tests.bench.peers``.
    :param arguments: of its command line.
    :param log: takes its standard error.
    """

    def __init__(self, module: str, arguments: Iterable[object], log: Path) -> None:
        self.log = log
        self._module = module
        self._arguments = [str(argument) for argument in arguments]
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[str]
        self._reader: threading.Thread

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"tests.bench.peers.{self._module}", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join(_GRACE_SECONDS)
        assert process.stdout is not None
        process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def hears(self, said: str, deadline: float) -> Message:
        """Wait until the peer says so; before that, it may say how far it is.

        :raises PeerError: it ended, said something else or nothing within `deadline` seconds.
        """
        try:
            while True:
                message = self._messages.get(timeout=deadline)
                heard = None if message is None else message.pop("said")
                if heard == said or heard not in _MARKS:
                    break
        except queue.Empty:
            error = f"{self._module}: no {said!r} within {deadline} s{self._tail()}"
            raise PeerError(error) from None
        if message is None or heard != said:
            raise PeerError(f"{self._module}: {heard!r} instead of {said!r}{self._tail()}")
        return message

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def measure(
        self, deadline: float, servers: Iterable[int] = (), *, second_half: bool = False
    ) -> Span:
        """Wait for the peer's work to begin and end, and say what it used.

        :param deadline: seconds for each of the two.
        :param servers: processes whose CPU time counts as the servers'.
        :param second_half: measure from when half of the images are scrubbed.
        """
        servers = list(servers)
        begin = self.hears("begin", deadline)
        if second_half:
            begin = self.hears("half", deadline)
        before = sum(map(cpu_seconds, servers))
        end = dict(self.hears("end", deadline))
        after = sum(map(cpu_seconds, servers))
        return Span(
            seconds=end.pop("wall") - begin["wall"],
            cpu_seconds=end.pop("cpu") - begin["cpu"],
            server_cpu_seconds=after - before,
            peak_bytes=end.pop("peak"),
            values=end,
        )

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self.log.open("a") as log:
            for line in self._process.stdout:
                if line.startswith('{"said": '):
                    self._messages.put(json.loads(line))
                else:
                    log.write(line)
        self._messages.put(None)

    def _tail(self) -> str:
        return f", {self.log}:\n{self.log.read_text(errors='replace')[-3000:]}"
