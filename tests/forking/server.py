# SPDX-License-Identifier: Apache-2.0
"""Imports modules, then forks a process for each program that a launcher asks for."""

from __future__ import annotations

import atexit
import gc
import importlib
import marshal
import os
import random
import runpy
import selectors
import signal
import socket
import sys
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path


@dataclass
class Request:
    """A program to run.

    :param streams: descriptors of its input, output and errors.
    """

    arguments: list[str]
    environment: dict[str, str]
    directory: str
    streams: list[int]


@dataclass
class Child:
    """A process and whom to tell its end."""

    pid: int
    pidfd: int
    connection: socket.socket


class Server:
    """Forks until its own input ends."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(0, selectors.EVENT_READ, self._end)
        self._children: list[Child] = []
        self._ended = False

    def serve(self) -> Request | None:
        """Return what to run, in the process that is to run it; None at the end."""
        while not self._ended:
            for key, _ in self._selector.select():
                # The end of a child closes its other descriptor, which another may have by now.
                if self._selector.get_map().get(key.fd) != key:
                    continue
                request: Request | None = key.data()
                if request is not None:
                    return request
        return None

    def _end(self) -> None:
        for child in self._children:
            os.kill(child.pid, signal.SIGKILL)
        self._ended = True

    def _accept(self) -> Request | None:
        connection, _ = self._listener.accept()
        try:
            request = _receive(connection)
        except (OSError, EOFError, ValueError):  # it was killed meanwhile
            connection.close()
            return None
        pid = os.fork()
        if pid == 0:
            self._close()
            connection.close()
            return request
        for stream in request.streams:
            os.close(stream)
        child = Child(pid, os.pidfd_open(pid), connection)
        self._children.append(child)
        self._selector.register(child.pidfd, selectors.EVENT_READ, partial(self._reap, child))
        # What a launcher sends after its request is its end.
        kill = partial(os.kill, pid, signal.SIGKILL)
        self._selector.register(connection, selectors.EVENT_READ, partial(self._lost, child, kill))
        with suppress(OSError):
            connection.sendall(pid.to_bytes(4, "big"))
        return None

    def _lost(self, child: Child, kill: partial[None]) -> None:
        self._selector.unregister(child.connection)
        kill()

    def _reap(self, child: Child) -> None:
        code = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        self._children.remove(child)
        self._selector.unregister(child.pidfd)
        with suppress(KeyError):
            self._selector.unregister(child.connection)
        os.close(child.pidfd)
        with suppress(OSError):
            child.connection.sendall(code.to_bytes(4, "big", signed=True))
        child.connection.close()

    def _close(self) -> None:
        self._selector.close()
        self._listener.close()
        for child in self._children:
            os.close(child.pidfd)
            child.connection.close()


def _receive(connection: socket.socket) -> Request:
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    wanted = int.from_bytes(head, "big")
    with connection.makefile("rb") as file:
        body = file.read(wanted)
    arguments, environment, directory = marshal.loads(body)
    return Request(arguments, environment, directory, streams)


def _run(request: Request) -> None:
    """Become the program, as an interpreter does that is started with these arguments."""
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request.directory)
    os.environ.clear()
    os.environ.update(request.environment)
    random.seed()
    paths = filter(None, request.environment.get("PYTHONPATH", "").split(os.pathsep))
    first, *rest = request.arguments
    if first == "-m":
        module, *arguments = rest
        sys.argv = [module, *arguments]
        sys.path[:1] = [request.directory, *paths]
        sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = request.arguments
        sys.path[:1] = [str(Path(first).parent), *paths]
        runpy.run_path(first, run_name="__main__")


def _run_to_the_end(request: Request) -> None:
    """Run the program and end this process, as an interpreter does but for one thing.

    It takes apart all that was imported, which costs the processor 0.15 s.
    """
    code = 0
    try:
        _run(request)
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        code = ended.code or 0
    threading._shutdown()  # type: ignore[attr-defined] # not in typeshed
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # an interpreter has its own way to tell this
        sys.exit(code)
    os._exit(code)


def main() -> None:
    """Run the command line: the socket's path and the modules to import."""
    path, *modules = sys.argv[1:]
    # Programs start others by it, and modules take it as a default.
    sys.executable = path.removesuffix(".socket")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in modules:
            importlib.import_module(module)
    assert threading.active_count() == 1
    server = Server(path)
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    if (request := server.serve()) is not None:
        _run_to_the_end(request)


if __name__ == "__main__":
    main()
