# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server in the agent's event loop, built on h11 and anyio.

It runs in the event loop so that an answer proves that the loop is alive, and so that the state it
shows does not change while it is read. Each connection serves one request, because clients poll
once a second or less.
"""

import errno
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

import anyio
import h11
from anyio.abc import SocketAttribute, SocketStream
from oslo_log import log as logging

from evscrub.domain.address import Address

LOG = logging.getLogger(__name__)

_READING = 32
_ANSWERING = 32
#: Paths exempt from the limit on concurrent answers: an orchestrator restarts an agent that does
#: not answer them. Their answers are short.
_URGENT = frozenset({"/healthz", "/readyz"})
_REQUEST_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
_REFUSAL_SECONDS = 1.0
_READ_BYTES = 16 * 1024
_LISTEN_AGAIN_SECONDS = 30.0

_ALWAYS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Connection": "close",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response; its body may be streamed."""

    body: str | bytes | AsyncIterable[bytes]
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


def _plain(status: HTTPStatus) -> Answer:
    return Answer(f"{status.phrase}\n", status=status)


_BUSY = _plain(HTTPStatus.SERVICE_UNAVAILABLE)

Respond = Callable[[str, Mapping[str, str]], Awaitable[Answer]]


class Connections:
    """Limits on open connections, so that no client can lock the others out.

    :param most_reading: maximum connections with an incomplete request, at least 1.
    :param most_answering: maximum concurrent answers, at least 1.
    """

    def __init__(self, most_reading: int, most_answering: int) -> None:
        self._most_reading = most_reading
        self._most_answering = most_answering
        self._reading: dict[anyio.CancelScope, None] = {}  # oldest first
        self._answering = 0

    @contextmanager
    def reading(self, seconds: float) -> Iterator[None]:
        """Limit the time that a client takes to send its request.

        Cancels the block at the timeout. If too many connections are in such a block, also cancels
        the oldest block.

        :param seconds: the timeout.
        """
        if len(self._reading) >= self._most_reading:
            silent = next(iter(self._reading))
            del self._reading[silent]
            silent.cancel()
        with anyio.move_on_after(seconds) as scope:
            self._reading[scope] = None
            try:
                yield
            finally:
                self._reading.pop(scope, None)

    @property
    def may_answer(self) -> bool:
        """Whether another request may be answered now."""
        return self._answering < self._most_answering

    @contextmanager
    def answering(self, seconds: float) -> Iterator[None]:
        """Count a request that is being answered, and limit its time.

        :param seconds: the timeout, at which the block is cancelled.
        """
        self._answering += 1
        try:
            with anyio.move_on_after(seconds):
                yield
        finally:
            self._answering -= 1


async def serve(address: Address, respond: Respond) -> None:
    """Serve until cancelled; if the port cannot be bound, log that once and retry periodically.

    :param respond: returns the response to a GET, given its path and its headers, whose names are
        in lower case.
    """
    answering = _only_if_asked_for_here(respond) if _is_here(address.host) else respond
    told = False
    while True:
        try:
            listener = await anyio.create_tcp_listener(
                local_host=address.host, local_port=address.port
            )
        except OSError as error:
            if not told:
                told = True
                taken = error.errno == errno.EADDRINUSE
                LOG.warning(
                    "No status page: cannot listen on %s: %s; the agent runs without it. %s",
                    address,
                    error.strerror or error,
                    "Several agents on one host each need a [status] listen of their own"
                    if taken
                    else "See [status] listen",
                )
            await anyio.sleep(_LISTEN_AGAIN_SECONDS)
            continue
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - not Django's
        LOG.info("Status page on http://%s/", Address(address.host, port))
        connections = Connections(_READING, _ANSWERING)

        async def handle(stream: SocketStream, connections: Connections = connections) -> None:
            async with stream:
                try:
                    await _converse(stream, connections, answering)
                except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass  # the client disconnected
                except h11.LocalProtocolError as error:
                    LOG.debug("A status response was incomplete: %s", error)

        try:
            async with listener:
                await listener.serve(handle)
        except* OSError as errors:  # accept() failed, for instance with too many open files
            LOG.warning("The status page is temporarily unavailable: %s", errors.exceptions[0])
        await anyio.sleep(_LISTEN_AGAIN_SECONDS)


def _only_if_asked_for_here(respond: Respond) -> Respond:
    """Wrap `respond` to reject requests whose Host header names another host.

    This prevents DNS rebinding: a web page whose own host name resolves to this host could
    otherwise read the agent's answers through its visitor's browser.
    """

    async def answer(path: str, headers: Mapping[str, str]) -> Answer:
        try:
            host = urlsplit(f"//{headers.get('host', '')}").hostname
        except ValueError:
            host = "?"
        if host is None or _is_here(host):
            return await respond(path, headers)
        return Answer("Ask for localhost.\n", status=HTTPStatus.MISDIRECTED_REQUEST)

    return answer


def _is_here(host: str) -> bool:
    """Return whether a name or address is this host's loopback."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _converse(stream: SocketStream, connections: Connections, respond: Respond) -> None:
    connection = h11.Connection(h11.SERVER)
    request = None
    with connections.reading(_REQUEST_SECONDS):
        try:
            request = await _read_request(stream, connection)
        except h11.RemoteProtocolError as error:
            await _send(stream, connection, _plain(HTTPStatus(error.error_status_hint)))
            return
    if request is None:
        return
    path = _path(request)
    room = connections.may_answer or path in _URGENT
    with connections.answering(_ANSWER_SECONDS if room else _REFUSAL_SECONDS):
        answer = await _answer(request, path, respond) if room else _BUSY
        await _send(stream, connection, answer, with_body=request.method != b"HEAD")


def _path(request: h11.Request) -> str | None:
    """Return the path of a request; None if the target is not a valid URL."""
    try:
        return urlsplit(request.target.decode("ascii")).path
    except ValueError:
        return None


async def _answer(request: h11.Request, path: str | None, respond: Respond) -> Answer:
    if path is None:
        return _plain(HTTPStatus.BAD_REQUEST)
    if request.method not in {b"GET", b"HEAD"}:
        return Answer(
            "Read-only: GET and HEAD.\n",
            status=HTTPStatus.METHOD_NOT_ALLOWED,
            headers={"Allow": "GET, HEAD"},
        )
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers}
    try:
        return await respond(path, headers)
    except Exception:
        LOG.exception("Cannot answer a status request")
        return Answer(
            "Internal error; see the agent's log.\n", status=HTTPStatus.INTERNAL_SERVER_ERROR
        )


async def _read_request(stream: SocketStream, connection: h11.Connection) -> h11.Request | None:
    """Read a request's headers; None if there is no request. A body is not read."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        try:
            data = await stream.receive(_READ_BYTES)
        except anyio.EndOfStream:
            data = b""
        connection.receive_data(data)


async def _send(
    stream: SocketStream, connection: h11.Connection, answer: Answer, *, with_body: bool = True
) -> None:
    headers = {"Content-Type": answer.content_type, **_ALWAYS, **answer.headers}
    body = answer.body.encode() if isinstance(answer.body, str) else answer.body
    if isinstance(body, bytes):
        headers["Content-Length"] = str(len(body))
    response = h11.Response(
        status_code=answer.status, reason=answer.status.phrase, headers=list(headers.items())
    )
    await stream.send(connection.send(response) or b"")
    if with_body:
        if isinstance(body, bytes):
            await stream.send(connection.send(h11.Data(data=body)) or b"")
        else:
            async for piece in body:
                await stream.send(connection.send(h11.Data(data=piece)) or b"")
    await stream.send(connection.send(h11.EndOfMessage()) or b"")
    await stream.send_eof()
