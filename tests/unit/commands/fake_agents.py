# SPDX-License-Identifier: Apache-2.0
"""Servers that answer in place of agents."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Returns the status code and the body of the answer to a path and a body.
Respond = Callable[[str, bytes], tuple[int, bytes]]


@contextmanager
def http_server(respond: Respond) -> Iterator[str]:
    """Run an HTTP server and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, answer = respond(self.path, body)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def agent(*answers: object) -> Iterator[tuple[str, list[Any]]]:
    """Run a server that gives these answers as JSON; yield its address and what it was sent."""
    sent: list[Any] = []
    left = list(answers)

    def respond(_path: str, body: bytes) -> tuple[int, bytes]:
        sent.append(json.loads(body) if body else None)
        return 200, json.dumps(left.pop(0) if len(left) > 1 else left[0]).encode()

    with http_server(respond) as address:
        yield address, sent


@contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run a server that treats each connection by a function of the test, and yield its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    talk(connection)
                except OSError:
                    continue  # the client went away

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)
        assert not thread.is_alive(), "the client's connection is open"
