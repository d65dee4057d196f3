# SPDX-License-Identifier: Apache-2.0
"""A wait for an answer that never comes ends, and no other does."""

import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from evscrub.registry.watchdog import Watchdog
from tests.servers import wait_until


class LostError(Exception):
    """A driver's error."""


def receive(client: socket.socket) -> None:
    """Wait for an answer as a driver does, but not for ever."""
    client.settimeout(20)
    if not client.recv(1):
        raise LostError("server closed the connection unexpectedly")


def test_a_wait_ends_after_its_time() -> None:
    client, server = socket.socketpair()
    began = time.monotonic()
    with (
        client,
        server,
        pytest.raises(LostError, match=r"did not answer within 0\.2 s"),
        Watchdog(0.2).watching(client.fileno(), LostError),
    ):
        receive(client)
    assert time.monotonic() - began >= 0.2


def test_time_is_the_clock_s() -> None:
    times = iter([1e12])
    client, server = socket.socketpair()
    with (
        client,
        server,
        pytest.raises(LostError, match="did not answer within 1000 s"),
        Watchdog(1000, lambda: next(times, 1e12 + 1000)).watching(client.fileno(), LostError),
    ):
        receive(client)


def test_other_errors_pass_and_answered_waits_leave_the_socket_alone() -> None:
    now = 0.0
    watching = Watchdog(0.2, lambda: now).watching
    client, server = socket.socketpair()
    with client, server:
        server.send(b"ab")
        with watching(client.fileno(), LostError):
            receive(client)
        with pytest.raises(ValueError, match="other"), watching(client.fileno(), LostError):
            raise ValueError("other")
        now = 1.0
        threading.Event().wait(0.5)  # until the watchdog has looked
        receive(client)


def test_many_waits_at_once_end_each_in_its_time() -> None:
    now = 0.0
    dog = Watchdog(0.3, lambda: now)
    ended: list[str] = []

    def wait(answer: bool) -> None:
        client, server = socket.socketpair()
        with client, server:
            if answer:
                server.send(b"a")
            try:
                with dog.watching(client.fileno(), LostError):
                    receive(client)
                ended.append("answered")
            except LostError:
                ended.append("lost")

    threads = [threading.Thread(target=wait, args=(number % 2 == 0,)) for number in range(20)]
    for thread in threads:
        thread.start()
    waiting = dog._watches
    wait_until(lambda: (len(ended), len(waiting)) == (10, 10), 30, "the answers")
    now = 1.0
    for thread in threads:
        thread.join(30)
    assert sorted(ended) == ["answered"] * 10 + ["lost"] * 10


def descriptors(client: socket.socket) -> int:
    """How many descriptors this process has for a socket; those of other tests come and go."""
    inode = os.fstat(client.fileno()).st_ino
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # it is closed meanwhile
            found += path.stat().st_ino == inode
    return found


def test_no_descriptor_is_left() -> None:
    now = 0.0
    dog = Watchdog(0.1, lambda: now)
    client, server = socket.socketpair()

    def receive_late() -> None:
        nonlocal now
        now = 1.0
        receive(client)

    with client, server:
        assert descriptors(client) == 1
        for _ in range(20):
            server.send(b"a")
            with dog.watching(client.fileno(), LostError):
                receive(client)
        with pytest.raises(LostError), dog.watching(client.fileno(), LostError):
            receive_late()
        assert descriptors(client) == 1
