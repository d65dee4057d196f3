# SPDX-License-Identifier: Apache-2.0
"""Asks the server beside it for a process that runs a program, and stands for it.

It is copied beside the server's socket and imports next to nothing.
"""

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


def main() -> int:
    """Run it; returns its exit code."""
    directory = os.getcwd()  # noqa: PTH109 - pathlib takes longer to import than all else here
    request = marshal.dumps((sys.argv[1:], dict(os.environ), directory))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{__file__}.socket")
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(request)
        pid = int.from_bytes(connection.recv(4), "big")
        if not pid:
            return 1
        for number in _PASSED_ON:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, _: os.kill(pid, number))
        answer = connection.recv(4)
        code = int.from_bytes(answer, "big", signed=True) if answer else 1
    if code < 0:
        if -code in _PASSED_ON:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
