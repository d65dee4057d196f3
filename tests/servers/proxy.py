# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that can be pointed elsewhere."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Self

from tests.servers.base import free_port


class Proxy(ThreadingTCPServer):
    """A proxy in front of a port of 127.0.0.1: a context manager.

    :param backend: the port that it connects its clients with.
    :param port: the port that it listens on, a free one by default.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, backend: int, port: int | None = None) -> None:
        super().__init__(("127.0.0.1", port or free_port()), _Connection)
        self.backend = backend
        self.port = int(self.server_address[1])
        self._open: set[socket.socket] = set()
        self._swallowed: set[socket.socket] = set()
        self._swallows = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self.cut()

    def point(self, backend: int) -> None:
        """Connect clients with another port from now on, and cut those that are connected."""
        with self._lock:
            self.backend = backend
        self.cut()

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            for side in self._open:
                with suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    def swallow(self) -> None:
        """Forward nothing more, neither on open connections nor on new ones."""
        with self._lock:
            self._swallows = True
            self._swallowed |= self._open

    def forward_new(self) -> None:
        """Let new connections work again; those that were swallowed stay so."""
        self._swallows = False

    def is_swallowed(self, side: socket.socket) -> bool:
        """Return whether what comes from there goes nowhere."""
        return side in self._swallowed

    def connect(self, client: socket.socket) -> socket.socket:
        """Connect a client with the backend, until one of them hangs up."""
        with self._lock:
            server = socket.create_connection(("127.0.0.1", self.backend))
            self._open |= {client, server}
            if self._swallows:
                self._swallowed |= {client, server}
        return server

    def forget(self, *sides: socket.socket) -> None:
        """Close the two ends of a connection."""
        with self._lock:
            for side in sides:
                self._open.discard(side)
                self._swallowed.discard(side)
                side.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a backend may be away, and whoever connects sees that."""


class _Connection(BaseRequestHandler):
    server: Proxy
    request: socket.socket

    def handle(self) -> None:
        backend = self.server.connect(self.request)
        sides = (self.request, backend)
        with selectors.DefaultSelector() as selector:
            for here, there in (sides, sides[::-1]):
                selector.register(here, selectors.EVENT_READ, data=(here, there))
            try:
                while True:
                    for key, _ in selector.select():
                        here, there = key.data
                        data = here.recv(1 << 16)
                        if not data:
                            return
                        if not self.server.is_swallowed(here):
                            there.sendall(data)
            except OSError:
                return
            finally:
                self.server.forget(*sides)
