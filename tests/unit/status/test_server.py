# SPDX-License-Identifier: Apache-2.0
"""The HTTP server: what it answers, and to whom it does not."""

import errno
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.stapled import MultiListener

from evscrub.domain.address import Address
from evscrub.status import server
from evscrub.status.server import MOST_BODY_BYTES, Accept, Answer, Post, serve
from tests.servers import free_port

HOST = "127.0.0.1"


async def respond(path: str, headers: Mapping[str, str]) -> Answer:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    match path:
        case "/":
            return Answer(f"hello {headers.get('x-name', 'you')}", headers={"X-Own": "1"})
        case "/healthz" | "/readyz":
            return Answer("ok")
        case "/slow":
            await anyio.sleep(20)
        case "/pieces":
            return Answer(pieces())
    raise RuntimeError("secret")


async def accept(post: Post) -> Answer:
    said = f"{post.client} {post.is_from_here} {post.headers.get('content-type')} {len(post.body)}"
    return Answer(said)


ACCEPT: dict[str, Accept] = {"/change": accept}


async def ask(port: int, request: bytes) -> tuple[bytes, bytes]:
    """Send a request and return head and body of the answer."""
    async with await anyio.connect_tcp(HOST, port) as stream:
        await stream.send(request)
        answer = b""
        try:
            while True:
                answer += await stream.receive()
        except anyio.EndOfStream:
            pass
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def with_server(talk: Callable[[int], Awaitable[None]]) -> None:
    async def run() -> None:
        port = free_port()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, Address(HOST, port), respond, ACCEPT)
            await until_open(port)
            with anyio.fail_after(20):
                await talk(port)
            tasks.cancel_scope.cancel()

    anyio.run(run)


async def until_open(port: int) -> None:
    with anyio.fail_after(20):
        while True:
            try:
                async with await anyio.connect_tcp(HOST, port):
                    return
            except OSError:
                await anyio.sleep(0.02)


def test_get_and_head_are_answered() -> None:
    async def talk(port: int) -> None:
        head, body = await ask(port, b"GET /?q=1 HTTP/1.1\r\nHost: localhost\r\nX-Name: me\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert body == b"hello me"
        for wanted in (b"X-Own: 1", b"X-Content-Type-Options: nosniff", b"Cache-Control: no-store"):
            assert wanted in head
        assert b"Server:" not in head
        head, body = await ask(port, b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"Content-Length: 9" in head
        assert body == b""
        head, body = await ask(port, b"GET / HTTP/1.0\r\n\r\n")
        assert body == b"hello you"
        _, body = await ask(port, b"GET /pieces HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert body == b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n"
        _, body = await ask(port, b"GET /pieces HTTP/1.0\r\n\r\n")
        assert body == b"one two"

    with_server(talk)


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"X"])
def test_nothing_else_is(method: bytes) -> None:
    async def talk(port: int) -> None:
        request = method + b" / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
        head, _ = await ask(port, request)
        assert head.startswith(b"HTTP/1.1 405 ")
        assert b"Allow: GET, HEAD" in head

    with_server(talk)


def post(*lines: bytes, body: bytes = b"", path: bytes = b"/change") -> bytes:
    head = [b"POST " + path + b" HTTP/1.1", b"Host: localhost", *lines]
    return b"\r\n".join([*head, b"", body])


def test_a_post_is_accepted_where_it_is_expected_and_there_alone() -> None:
    async def talk(port: int) -> None:
        with_type = b"Content-Type: application/json"
        head, body = await ask(port, post(with_type, b"Content-Length: 4", body=b"1234"))
        assert head.startswith(b"HTTP/1.1 200 ")
        assert body == b"127.0.0.1 True application/json 4"
        chunked = post(b"Transfer-Encoding: chunked", body=b"2\r\n12\r\n1\r\n3\r\n0\r\n\r\n")
        assert (await ask(port, chunked))[1] == b"127.0.0.1 True None 3"
        assert (await ask(port, post()))[1] == b"127.0.0.1 True None 0"
        for method in (b"GET", b"HEAD", b"OPTIONS", b"PUT"):
            head, _ = await ask(port, method + b" /change HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 405 ")
            assert b"Allow: POST" in head
            assert b"Access-Control" not in head

    with_server(talk)


@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_post_that_is_too_long_is_refused(in_chunks: bool) -> None:
    async def talk(port: int) -> None:
        for length, status in ((MOST_BODY_BYTES, b"200"), (MOST_BODY_BYTES + 1, b"413")):
            data = b"x" * length
            if in_chunks:
                body = b"%x\r\n%b\r\n0\r\n\r\n" % (length, data)
                request = post(b"Transfer-Encoding: chunked", body=body)
            else:
                request = post(b"Content-Length: %d" % length, body=data)
            head, _ = await ask(port, request)
            assert head.split()[1] == status

    with_server(talk)


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: x"],
        [b"Content-Length: -1"],
        [b"Content-Length: 1", b"Content-Length: 2"],
    ],
)
def test_a_post_without_a_valid_length_is_refused(lines: list[bytes]) -> None:
    async def talk(port: int) -> None:
        head, _ = await ask(port, post(*lines, body=b"1"))
        assert head.split()[1] == b"400"

    with_server(talk)


def test_a_post_that_never_ends_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evscrub.status.server._REQUEST_SECONDS", 0.1)

    async def talk(port: int) -> None:
        async with await anyio.connect_tcp(HOST, port) as stream:
            await stream.send(post(b"Content-Length: 10", body=b"1234"))
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()

    with_server(talk)


def test_a_post_is_accepted_on_loopback_only_if_it_names_it() -> None:
    async def talk(port: int) -> None:
        request = b"POST /change HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n"
        head, _ = await ask(port, request)
        assert head.split()[1] == b"421"

    with_server(talk)


@pytest.mark.parametrize(
    ("client", "own", "is_from_here"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.9.9.9", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.6", "10.0.0.5", False),
        ("::ffff:10.0.0.6", "::ffff:10.0.0.5", False),
        ("fe80::1%eth0", "fe80::2%eth0", False),
    ],
)
def test_a_client_on_this_host_is_told_from_others(
    client: str, own: str, is_from_here: bool
) -> None:
    class Stream:
        def extra(self, attribute: object) -> tuple[str, int]:
            return (client if attribute is SocketAttribute.remote_address else own, 1)

    stream: Any = Stream()
    address, found = server._client(stream)
    assert found is is_from_here
    assert str(address) == client.removeprefix("::ffff:")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000, b"431"),
        (b"GET /breaks HTTP/1.1\r\nHost: localhost\r\n\r\n", b"500"),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
    ],
)
def test_what_is_wrong_is_told_and_the_next_one_is_answered(request_: bytes, status: bytes) -> None:
    async def talk(port: int) -> None:
        head, body = await ask(port, request_)
        assert head.split()[1] == status
        assert b"secret" not in body
        _, body = await ask(port, b"GET / HTTP/1.0\r\n\r\n")
        assert body == b"hello you"

    with_server(talk)


def test_who_says_nothing_or_goes_away_holds_up_nobody() -> None:
    async def talk(port: int) -> None:
        for _ in range(20):
            stream = await anyio.connect_tcp(HOST, port)
            await stream.send(b"GET / HT")
            await stream.aclose()
        async with await anyio.connect_tcp(HOST, port):
            _, body = await ask(port, b"GET / HTTP/1.0\r\n\r\n")
        assert body == b"hello you"

    with_server(talk)


def request_and_reset(port: int, request: bytes) -> None:
    """Send a request and reset the connection, all before the event loop runs again."""
    with socket.create_connection((HOST, port)) as client:
        client.sendall(request)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",
        b"GET /pieces HTTP/1.0\r\n\r\n",
        b"GET /breaks HTTP/1.0\r\n\r\n",
        post(b"Content-Length: 1", body=b"1"),
    ],
)
def test_who_resets_the_connection_ends_nothing(
    request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(port: int) -> None:
        for _ in range(5):
            request_and_reset(port, request_)
            _, body = await ask(port, b"GET / HTTP/1.0\r\n\r\n")
            assert body == b"hello you"

    with_server(talk)
    assert "A status request failed" not in caplog.text


def test_what_fails_in_a_conversation_ends_only_that(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("odd")

    async def talk(port: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("evscrub.status.server._converse", fail)
            assert await ask(port, b"GET / HTTP/1.0\r\n\r\n") == (b"", b"")
        _, body = await ask(port, b"GET / HTTP/1.0\r\n\r\n")
        assert body == b"hello you"

    with_server(talk)
    assert "A status request failed" in caplog.text


def test_clients_that_send_nothing_shut_nobody_out() -> None:
    async def talk(port: int) -> None:
        async with AsyncExitStack() as stack:
            silent = [
                await stack.enter_async_context(await anyio.connect_tcp(HOST, port))
                for _ in range(40)
            ]
            for path in (b"/", b"/healthz"):
                head, _ = await ask(port, b"GET " + path + b" HTTP/1.0\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await silent[0].receive()  # the one that is silent for longest was closed
            await silent[-1].send(b"GET / HTTP/1.0\r\n\r\n")
            assert await silent[-1].receive()

    with_server(talk)


def test_clients_that_half_send_are_closed_in_their_order() -> None:
    async def talk(port: int) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(40):
                stream = await stack.enter_async_context(await anyio.connect_tcp(HOST, port))
                await stream.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Name: ")
            _, body = await ask(port, b"GET /healthz HTTP/1.0\r\n\r\n")
            assert body == b"ok"

    with_server(talk)


def test_slow_answers_leave_health_alone() -> None:
    async def talk(port: int) -> None:
        async with AsyncExitStack() as stack:
            slow = [
                await stack.enter_async_context(await anyio.connect_tcp(HOST, port))
                for _ in range(32)
            ]
            for stream in slow:
                await stream.send(b"GET /slow HTTP/1.0\r\n\r\n")
            head = b""
            while not head.startswith(b"HTTP/1.1 503 "):  # until all of them are being answered
                head, _ = await ask(port, b"GET / HTTP/1.0\r\n\r\n")
            for path in (b"/healthz", b"/readyz"):
                _, body = await ask(port, b"GET " + path + b" HTTP/1.0\r\n\r\n")
                assert body == b"ok"
            await slow[0].aclose()

    with_server(talk)


@pytest.mark.parametrize(
    "target",
    [b"//[", b"//[::1", b"http://[/x", b"//[x]/", b"/\xff", b"//[v1.x", b"http://a]b/"],
)
def test_a_target_that_is_no_url_is_refused_in_silence(
    target: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(port: int) -> None:
        head, _ = await ask(port, b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert head.split()[1] == b"400"

    with_server(talk)
    assert [r.levelname for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_a_host_that_takes_no_connection_for_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evscrub.status.server._LISTEN_AGAIN_SECONDS", 0.05)
    serve_for_ever = MultiListener.serve
    failures = [OSError(errno.EMFILE, "Too many open files")]

    async def fail_once(self: Any, handler: Any, task_group: Any = None) -> None:
        if failures:
            raise failures.pop()
        await serve_for_ever(self, handler, task_group)

    monkeypatch.setattr(MultiListener, "serve", fail_once)

    async def talk(port: int) -> None:
        while "Too many open files" not in caplog.text:  # noqa: ASYNC110 - a log tells none
            await anyio.sleep(0.01)
        await until_open(port)
        _, body = await ask(port, b"GET / HTTP/1.0\r\n\r\n")
        assert body == b"hello you"

    with_server(talk)


def test_a_port_that_is_taken_is_warned_of_and_taken_when_it_is_free(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evscrub.status.server._LISTEN_AGAIN_SECONDS", 0.05)

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            with socket.create_server((HOST, 0)) as other:
                port = other.getsockname()[1]
                tasks.start_soon(serve, Address(HOST, port), respond, ACCEPT)
                with anyio.fail_after(20):
                    while "Several agents" not in caplog.text:  # noqa: ASYNC110 - a log tells none
                        await anyio.sleep(0.01)
                await anyio.sleep(0.2)
            await until_open(port)
            _, body = await ask(port, b"GET / HTTP/1.0\r\n\r\n")
            assert body == b"hello you"
            tasks.cancel_scope.cancel()

    anyio.run(run)
    assert caplog.text.count("No status page") == 1


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"127.0.0.1:9753", b"200"),
        (b"localhost", b"200"),
        (b"[::1]:9753", b"200"),
        (b"evil.example:9753", b"421"),
        (b"127.0.0.1.evil.example", b"421"),
        (b"10.0.0.1", b"421"),
        (b"[::1", b"421"),
    ],
)
def test_on_loopback_only_those_who_ask_for_it_are_answered(host: bytes, status: bytes) -> None:
    async def talk(port: int) -> None:
        head, body = await ask(port, b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert head.split()[1] == status
        assert (body == b"hello you") is (status == b"200")

    with_server(talk)
