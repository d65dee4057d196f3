# SPDX-License-Identifier: Apache-2.0
"""A server in a temporary folder of its own, on a free port."""

from __future__ import annotations

import atexit
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

POLL, MOST_POLL = 0.02, 0.1
#: Below the ports that the kernel gives to clients, which would take one between look and use.
_PORTS = range(12_000, 32_000)
#: How many a process takes for itself at a time.
_BLOCK = 100


def _ports() -> Iterator[int]:
    """Yield ports that no other process gets here, for a server may listen long after it asked."""
    blocks = list(_PORTS[::_BLOCK])
    random.SystemRandom().shuffle(blocks)
    for first in blocks:
        # An abstract socket is the machine's, and goes with the process.
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0evscrub-test-ports-{first}")
        except OSError:
            held.close()
            continue
        _held.append(held)
        yield from range(first, min(first + _BLOCK, _PORTS.stop))


_held: list[socket.socket] = []
_candidates = _ports()


def free_port() -> int:
    """Return a TCP port that nothing on 127.0.0.1 listens on, and that was not returned before."""
    for port in _candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is left")


def wait_until(true: Callable[[], object], deadline: float, what: str) -> None:
    """Wait until a condition holds.

    :param true: the condition.
    :param deadline: seconds to wait at most.
    :param what: what is waited for, for the error.
    :raises TimeoutError: it did not hold in time.
    """
    began = time.monotonic()
    while not true():
        waited = time.monotonic() - began
        if waited > deadline:
            raise TimeoutError(f"{what}: not within {deadline} s")
        # A look takes processor time that others need: what takes longer is looked at less often.
        time.sleep(min(POLL + waited / 20, MOST_POLL))


class Server(ABC):
    """A server with its own port and temporary folder: a context manager.

    :param deadline: seconds to wait until it is ready.
    """

    #: The Debian package that has the server.
    package: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    kill_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self, *, deadline: float = 180.0) -> None:
        self.deadline = deadline
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix=f"evscrub-{self.package}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared = False
        self._owner: int | None = os.getpid()
        atexit.register(self.close)

    def __getstate__(self) -> dict[str, Any]:
        """Return what lets another process use the server, but neither stop nor start it."""
        return self.__dict__ | {"_process": None}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def log_path(self) -> Path:
        """Everything that the server prints."""
        return self.directory / "output.log"

    @property
    def pid(self) -> int | None:
        """The server's process id, none while it is stopped."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server, with the data that it had, and wait until it is ready.

        :raises RuntimeError: another process owns it.
        :raises FileNotFoundError: the server is not installed; names the package.
        :raises RuntimeError: it ended or was not ready in time; with its log's tail.
        """
        self._check_owner()
        if self._process is not None:
            return
        try:
            if not self._prepared:
                self._prepare()
                self._prepared = True
            self._process = self._spawn(self._command())
            wait_until(self._is_up, self.deadline, f"{self.package} is ready")
        except BaseException as error:
            self.kill()
            if not isinstance(error, TimeoutError | subprocess.SubprocessError):
                raise
            raise RuntimeError(f"{error}\n{self._tail()}") from error

    def stop(self) -> None:
        """Stop the server in good order; its data stays."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Stop the server as a crash would; what it had on disk stays."""
        self._end(self.kill_signal)

    def restart(self) -> None:
        """Stop the server and start it on the same port with its data.

        :raises RuntimeError: it ended or was not ready in time; with its log's tail.
        """
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop all its processes where they are: connections stay open and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let its processes go on."""
        self._signal_all(signal.SIGCONT)

    def close(self) -> None:
        """Stop the server and remove its folder."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    @abstractmethod
    def _prepare(self) -> None:
        """Do once what comes before the first start."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Return the command that runs the server in the foreground."""

    @abstractmethod
    def _ready(self) -> bool:
        """Return whether the server takes work."""

    def _environment(self) -> Mapping[str, str]:
        return os.environ

    def _account(self) -> str | None:
        """Return the name of the account to run as, none for the caller's own."""
        return None

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        account = self._account()
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=dict(self._environment()),
                # In a session of its own, Ctrl-C reaches the tests alone, and they stop it.
                start_new_session=True,
                user=account,
                group=pwd.getpwnam(account).pw_gid if account else None,
                extra_groups=[] if account else None,
            )

    def _run(self, command: Sequence[str]) -> None:
        process = self._spawn(command)
        if process.wait(self.deadline):
            raise subprocess.CalledProcessError(process.returncode, command)

    def _is_up(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(
                f"{self.package} ended with {self._process.returncode}\n{self._tail()}"
            )
        return self._ready()

    def _check_owner(self) -> None:
        if self._owner != os.getpid():
            raise RuntimeError(f"{self.package} is shared: stop and start one of the test's own")

    def _end(self, how: signal.Signals) -> None:
        self._check_owner()
        self.thaw()
        process, self._process = self._process, None
        if process is not None:
            end(process, how)

    def _signal_all(self, number: signal.Signals) -> None:
        self._check_owner()
        if self._process is not None:
            for pid in _tree(self._process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:] if self.log_path.exists() else ""

    def _program(self, name: str, *places: str) -> str:
        """Find a program in the given folders, which may have wildcards, or on the path."""
        for place in places:
            for folder in sorted(Path("/").glob(place.removeprefix("/")), reverse=True):
                if (folder / name).exists():
                    return str(folder / name)
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if found is None:
            raise FileNotFoundError(f"{name} is not installed: install {self.package}")
        return found


def _tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(below for child in children for below in _tree(int(child)))]


def is_open(port: int) -> bool:
    """Return whether something on 127.0.0.1 listens on a TCP port.

    :param port: the port.
    """
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end(process: subprocess.Popen[bytes], how: signal.Signals, grace: float = 30.0) -> None:
    """End a process by a signal, and by SIGKILL where that takes more than `grace` seconds."""
    process.send_signal(how)
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
