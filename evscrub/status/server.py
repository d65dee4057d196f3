# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server in the agent's event loop, built on h11 and anyio.

It runs in the event loop so that an answer proves that the loop is alive, and so that the state it
shows does not change while it is read. Each connection serves one request, because clients poll
once a second or less.
"""

import errno
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

import anyio
import h11
from anyio.abc import SocketAttribute, SocketStream
from oslo_log import log as logging

from evscrub.domain.address import Address
from evscrub.status.connections import Connections

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
#: Maximum length of a POST's body.
MOST_BODY_BYTES = 64 * 1024
_LISTEN_AGAIN_SECONDS = 30.0
#: What is raised when the client is gone; anyio then knows no address of it.
_DISCONNECTED = (
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.TypedAttributeLookupError,
)

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

IPAddress = IPv4Address | IPv6Address
Respond = Callable[[str, Mapping[str, str]], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Post:
    """A POST request.

    :param headers: by name in lower case.
    :param client: address of the client.
    :param is_from_here: whether the client runs on this host.
    """

    headers: Mapping[str, str]
    body: bytes
    client: IPAddress
    is_from_here: bool


Accept = Callable[[Post], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class _Site:
    """What is served.

    :param respond: see :func:`serve`.
    :param accept: see :func:`serve`.
    :param is_loopback: whether to answer only requests whose Host header names this host.
    """

    respond: Respond
    accept: Mapping[str, Accept]
    is_loopback: bool


async def serve(address: Address, respond: Respond, accept: Mapping[str, Accept]) -> None:
    """Serve until cancelled; if the port cannot be bound, log that once and retry periodically.

    :param respond: returns the response to a GET, given its path and its headers, whose names are
        in lower case.
    :param accept: by path, what returns the response to a POST; it decides who may send one.
    """
    site = _Site(respond, accept, is_loopback=_is_here(address.host))
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
                    await _converse(stream, connections, site)
                except _DISCONNECTED:
                    pass
                except h11.LocalProtocolError as error:
                    LOG.debug("A status response was incomplete: %s", error)
                except Exception:  # a client must not be able to end the agent
                    LOG.exception("A status request failed")

        try:
            async with listener:
                await listener.serve(handle)
        except* OSError as errors:  # accept() failed, for instance with too many open files
            LOG.warning("The status page is temporarily unavailable: %s", errors.exceptions[0])
        await anyio.sleep(_LISTEN_AGAIN_SECONDS)


def _names_here(headers: Mapping[str, str]) -> bool:
    """Return whether a request's Host header is missing or names this host.

    This prevents DNS rebinding: a web page whose own host name resolves to this host could
    otherwise read the agent's answers through its visitor's browser.
    """
    try:
        host = urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        return False
    return host is None or _is_here(host)


def _is_here(host: str) -> bool:
    """Return whether a name or address is this host's loopback."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _converse(stream: SocketStream, connections: Connections, site: _Site) -> None:
    connection = h11.Connection(h11.SERVER)
    received = None
    with connections.reading(_REQUEST_SECONDS):
        try:
            received = await _receive(stream, connection, site)
        except h11.RemoteProtocolError as error:
            await _send(stream, connection, _plain(HTTPStatus(error.error_status_hint)))
            return
    if received is None:
        return
    request, body = received
    path = _path(request)
    room = connections.may_answer or path in _URGENT
    with connections.answering(_ANSWER_SECONDS if room else _REFUSAL_SECONDS):
        answer = await _answer(request, body, stream, site) if room else _BUSY
        await _send(stream, connection, answer, with_body=request.method != b"HEAD")


def _path(request: h11.Request) -> str | None:
    """Return the path of a request; None if the target is not a valid URL."""
    try:
        return urlsplit(request.target.decode("ascii")).path
    except ValueError:
        return None


async def _answer(request: h11.Request, body: bytes, stream: SocketStream, site: _Site) -> Answer:
    path = _path(request)
    if path is None:
        return _plain(HTTPStatus.BAD_REQUEST)
    methods = {b"POST"} if path in site.accept else {b"GET", b"HEAD"}
    if request.method not in methods:
        allowed = ", ".join(sorted(method.decode() for method in methods))
        return Answer(
            f"Only {allowed}.\n",
            status=HTTPStatus.METHOD_NOT_ALLOWED,
            headers={"Allow": allowed},
        )
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers}
    if site.is_loopback and not _names_here(headers):
        return Answer("Ask for localhost.\n", status=HTTPStatus.MISDIRECTED_REQUEST)
    post = Post(headers, body, *_client(stream)) if path in site.accept else None
    try:
        if post is not None:
            return await site.accept[path](post)
        return await site.respond(path, headers)
    except Exception:
        LOG.exception("Cannot answer a status request")
        return Answer(
            "Internal error; see the agent's log.\n", status=HTTPStatus.INTERNAL_SERVER_ERROR
        )


def _client(stream: SocketStream) -> tuple[IPAddress, bool]:
    """Return the client's address, and whether the client runs on this host.

    A connection from a host to an address of its own has that address at both ends; no other host
    can open one, because answers to it would not leave this host.

    :raises anyio.TypedAttributeLookupError: the client has disconnected.
    """
    client, own = (
        _unmapped(ip_address(stream.extra(attribute)[0]))  # noqa: S610 - not Django's
        for attribute in (SocketAttribute.remote_address, SocketAttribute.local_address)
    )
    return client, client.is_loopback or client == own


def _unmapped(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that a socket for both families shows as an IPv6 address."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


async def _receive(
    stream: SocketStream, connection: h11.Connection, site: _Site
) -> tuple[h11.Request, bytes] | None:
    """Read a request, and its body if that is accepted; None if there is no request.

    :raises h11.RemoteProtocolError: the request is malformed, or its body too long.
    """
    request = await _next_event(stream, connection)
    if not isinstance(request, h11.Request):
        return None
    body = bytearray()
    if request.method == b"POST" and _path(request) in site.accept:
        while isinstance(event := await _next_event(stream, connection), h11.Data):
            body += event.data
            if len(body) > MOST_BODY_BYTES:
                too_long = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                raise h11.RemoteProtocolError("body too long", error_status_hint=too_long)
    return request, bytes(body)


async def _next_event(stream: SocketStream, connection: h11.Connection) -> h11.Event | type:
    while True:
        event = connection.next_event()
        if event is not h11.NEED_DATA:
            return event
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
