# SPDX-License-Identifier: Apache-2.0
"""Asks a server for a process that runs a program, and stands for it.

It is copied beside the server's socket and imports next to nothing.
"""

from __future__ import annotations

import marshal
import os
import signal
import socket
import sys

_PASSED_ON = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def ask(
    path: str, arguments: list[str], streams: tuple[int, int, int]
) -> tuple[socket.socket, int]:
    """Have a program run, with this process's environment and in its folder.

    :param path: the server's socket.
    :param arguments: what follows the interpreter on a command line.
    :param streams: descriptors of its input, output and errors.
    :returns: a connection on which :func:`code_in` waits for its end, and its process. The server
        kills the process when the connection is closed.
    :raises ConnectionError: the server is gone.
    """
    directory = os.getcwd()  # noqa: PTH109 - pathlib takes longer to import than all else here
    request = marshal.dumps((arguments, dict(os.environ), directory))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    socket.send_fds(connection, [len(request).to_bytes(4, "big")], streams)
    connection.sendall(request)
    pid = int.from_bytes(connection.recv(4), "big")
    if not pid:
        raise ConnectionResetError
    return connection, pid


def code_in(connection: socket.socket) -> int:
    """Wait for the program's end; returns its exit code, negative for a signal."""
    answer = connection.recv(4)
    return int.from_bytes(answer, "big", signed=True) if answer else 1


def main() -> int:
    """Run it; returns its exit code."""
    connection, pid = ask(f"{__file__}.socket", sys.argv[1:], (0, 1, 2))
    for number in _PASSED_ON:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: os.kill(pid, number))
    code = code_in(connection)
    if code < 0:
        if -code in _PASSED_ON:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
