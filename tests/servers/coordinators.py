# SPDX-License-Identifier: Apache-2.0
"""Real etcd, Redis and memcached servers: what groups of agents are kept in."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import httpx

from tests.servers.base import Server, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROBE_SECONDS = 1.0


class CoordinatorServer(Server):
    """A server that keeps groups of processes."""

    #: Its name in a table of results.
    name: ClassVar[str]

    @property
    @abstractmethod
    def url(self) -> str:
        """URL for tooz."""

    def stall(self, seconds: float) -> None:
        """Let the server answer nothing for some seconds, with its connections open."""
        self.freeze()
        try:
            time.sleep(seconds)
        finally:
            self.thaw()

    def restart_empty(self) -> None:
        """Restart the server without anything that it kept, as a crash that costs its disk does.

        :raises RuntimeError: it ended or was not ready in time; with its log's tail.
        """
        self.kill()
        shutil.rmtree(self.directory / "data", ignore_errors=True)
        self.start()


class Etcd(CoordinatorServer):
    """An etcd of one node. It keeps what it has when it is stopped or killed."""

    package = "etcd-server"
    name = "etcd"

    def __init__(self, *, deadline: float = 180.0) -> None:
        super().__init__(deadline=deadline)
        self._peer_port = free_port()

    @property
    def url(self) -> str:
        return f"etcd3+http://127.0.0.1:{self.port}"

    def _prepare(self) -> None:
        pass

    def _command(self) -> Sequence[str]:
        here, peers = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self._peer_port}"
        return [
            self._program("etcd"),
            f"--data-dir={self.directory}/data",
            f"--listen-client-urls={here}",
            f"--advertise-client-urls={here}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--logger=zap",
            "--log-level=warn",
        ]

    def _ready(self) -> bool:
        try:
            answer = httpx.get(
                f"http://127.0.0.1:{self.port}/health", timeout=_PROBE_SECONDS, trust_env=False
            )
        except httpx.HTTPError:
            return False
        return answer.is_success and answer.json()["health"] == "true"


class Redis(CoordinatorServer):
    """A Redis that asks for a password. It forgets everything when it is killed."""

    package = "redis-server"
    name = "redis"

    def __init__(self, *, deadline: float = 180.0) -> None:
        super().__init__(deadline=deadline)
        self.password = secrets.token_hex(8)

    @property
    def url(self) -> str:
        return f"redis://default:{self.password}@127.0.0.1:{self.port}"

    def _prepare(self) -> None:
        pass

    def _command(self) -> Sequence[str]:
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        return [
            self._program("redis-server"),
            *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(data)),
            *("--requirepass", self.password, "--save", "", "--appendonly", "no"),
        ]

    def _ready(self) -> bool:
        # Inline commands; PONG comes after +OK.
        return _answers(self.port, f"AUTH {self.password}\r\nPING\r\n".encode(), b"+PONG\r\n")


class Memcached(CoordinatorServer):
    """A memcached. It forgets everything when it is stopped."""

    package = "memcached"
    name = "memcached"

    @property
    def url(self) -> str:
        return f"memcached://127.0.0.1:{self.port}"

    def _prepare(self) -> None:
        pass

    def _command(self) -> Sequence[str]:
        command = [self._program("memcached"), "-l", "127.0.0.1", "-p", str(self.port)]
        # It refuses to run as root unless root is named.
        return [*command, "-u", "root"] if os.geteuid() == 0 else command

    def _ready(self) -> bool:
        return _answers(self.port, b"version\r\n", b"VERSION ")


def _answers(port: int, request: bytes, expected: bytes) -> bool:
    """Return whether a server's first answers contain what is expected."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_PROBE_SECONDS) as connection:
            connection.sendall(request)
            while expected not in answer:
                received = connection.recv(1 << 12)
                if not received:
                    return False
                answer += received
    except OSError:
        return False
    return True


#: Kinds of servers by name.
COORDINATORS: dict[str, type[CoordinatorServer]] = {
    kind.name: kind for kind in (Etcd, Redis, Memcached)
}
