# SPDX-License-Identifier: Apache-2.0
"""One server of each kind for a whole run, whichever of its processes asks for it.

pytest-xdist's workers end one by one, so no worker may own what the others use. The process that
started them does: it starts a server when a worker first asks for it, and stops all at the end. So
does a program that runs by itself, such as `python -m tests.chaos`.
What is shared is a class without parameters whose instances are context managers and can be sent to
another process.
"""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import AbstractContextManager, ExitStack, suppress
from multiprocessing.connection import Client, Listener
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_ADDRESS = "EVSCRUB_TESTS_SERVERS"

_Shareable = AbstractContextManager[Any]
S = TypeVar("S", bound=_Shareable)


class Owner:
    """Starts servers for this process and, once it is open, for those that it starts."""

    def __init__(self) -> None:
        self._servers: dict[type[_Shareable], _Shareable] = {}
        self._locks: dict[type[_Shareable], threading.Lock] = {}
        self._stack = ExitStack()
        self.is_open = False

    def open(self) -> None:
        """Let processes that are started from now on ask for servers."""
        folder = self._stack.enter_context(TemporaryDirectory(prefix="evscrub-servers-"))
        os.environ[_ADDRESS] = str(Path(folder) / "socket")
        listener = self._stack.enter_context(Listener(os.environ[_ADDRESS], "AF_UNIX", backlog=64))
        threading.Thread(target=self._listen, args=(listener,), daemon=True).start()
        self.is_open = True

    def close(self) -> None:
        """Stop all servers."""
        self.is_open = False
        os.environ.pop(_ADDRESS, None)
        self._stack.close()

    def get(self, kind: type[_Shareable]) -> _Shareable:
        """Return the server of a kind, which runs.

        :raises FileNotFoundError: it is not installed.
        :raises RuntimeError: it did not start.
        """
        with self._locks.setdefault(kind, threading.Lock()):
            if kind not in self._servers:
                atexit.register(self.close)
                self._servers[kind] = self._stack.enter_context(kind())
            return self._servers[kind]

    def _listen(self, listener: Listener) -> None:
        with suppress(OSError):  # it was closed
            while True:
                asked = listener.accept()
                threading.Thread(target=self._answer, args=(asked,), daemon=True).start()

    def _answer(self, connection: Connection) -> None:
        with connection:
            try:
                connection.send(self.get(connection.recv()))
            except Exception as error:  # noqa: BLE001 - it is raised where it was asked
                connection.send(error)


_owner = Owner()
open_to_workers, close = _owner.open, _owner.close


def shared(kind: type[S]) -> S:
    """Return the run's server of a kind; it is started when it is first asked for.

    :raises FileNotFoundError: it is not installed.
    :raises RuntimeError: it did not start.
    """
    if _owner.is_open or _ADDRESS not in os.environ:
        return cast("S", _owner.get(kind))
    with Client(os.environ[_ADDRESS], "AF_UNIX") as connection:
        connection.send(kind)
        answer = connection.recv()
    if isinstance(answer, Exception):
        raise answer
    return cast("S", answer)
