# SPDX-License-Identifier: Apache-2.0
"""Client of an agent's status port.

Whatever listens there is not trusted: time and memory are bounded, and messages quote what it said
without control characters.
"""

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

from evscrub.domain.address import Address
from evscrub.domain.quoting import printable, shorten

_SECONDS = 5.0
#: Time for a whole answer of one document.
_DOCUMENT_SECONDS = 15.0
#: Maximum length of a document and of a line of ``/troubles``; real ones are far shorter.
_MOST_BYTES = 16 * 1024 * 1024
_MOST_LINE_BYTES = 64 * 1024
#: Maximum number of lines of ``/troubles``, which are kept in memory.
_MOST_TROUBLES = 3_000_000
_MOST_REFUSAL_BYTES = 1024
_NO_AGENT = "the server on {} is not an evscrub agent"


class NoAnswerError(Exception):
    """Raised if no agent answers, or it refuses; the message says where and why."""


def status(address: Address) -> dict[str, Any]:
    """Return the content of ``/status``.

    :raises NoAnswerError: no agent answers within 15 seconds, or the server is not an agent.
    """
    found = _document(address, "GET", "/status")
    if "agent" not in found:
        raise NoAnswerError(_NO_AGENT.format(address))
    return found


def retry(address: Address, wanted: Mapping[str, object]) -> dict[str, Any]:
    """Ask an agent to look at failed images now, and return its answer.

    :param wanted: ``{"images": [ID, ...]}``, ``{"stores": [NAME, ...]}`` or ``{"all": True}``.
    :raises NoAnswerError: no agent answers within 15 seconds, it refuses, or the server is not an
        agent.
    """
    return _document(address, "POST", "/retry", json.dumps(wanted))


def troubles(address: Address) -> Iterator[dict[str, Any]]:
    """Yield the records of ``/troubles``: one for each image (``id``) and stopped ``store``.

    :raises NoAnswerError: no agent answers within 5 seconds, or the server is not an agent, as one
        that says more than three million lines.
    """
    with _ask(address, "GET", "/troubles") as answer:
        for _ in range(_MOST_TROUBLES):
            line = answer.readline(_MOST_LINE_BYTES)
            if not line:
                return
            told = json.loads(line)
            if not isinstance(told, dict) or not isinstance(told.get("id", told.get("store")), str):
                break
            yield told
        raise NoAnswerError(_NO_AGENT.format(address))


def _document(address: Address, method: str, path: str, body: str | None = None) -> dict[str, Any]:
    with _ask(address, method, path, body, within_seconds=_DOCUMENT_SECONDS) as answer:
        text = answer.read(_MOST_BYTES + 1)
        found: object = json.loads(text) if len(text) <= _MOST_BYTES else None
        if not isinstance(found, dict):
            raise NoAnswerError(_NO_AGENT.format(address))
        return found


@contextmanager
def _ask(
    address: Address,
    method: str,
    path: str,
    body: str | None = None,
    *,
    within_seconds: float | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """Send a request and yield the answer.

    :param within_seconds: time for the whole answer; None if only each part of it is limited.
    """
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_SECONDS)
    headers = {} if body is None else {"Content-Type": "application/json"}
    late = threading.Event()
    watch = None
    try:
        connection.connect()
        if within_seconds is not None:
            watch = threading.Timer(within_seconds, _cut, (connection.sock, late))
            watch.daemon = True
            watch.start()
        connection.request(method, path, body, headers)
        # The connection does not close an answer that ends with it.
        with connection.getresponse() as answer:
            if answer.status != HTTPStatus.OK:
                text = answer.read(_MOST_REFUSAL_BYTES).decode("utf-8", "replace")
                raise NoAnswerError(_refusal(address, method, answer.status, text))
            yield answer
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        if late.is_set():
            said = f"no agent answers on {address}: not within {within_seconds:g} seconds"
        elif isinstance(error, OSError):
            why = error.strerror or str(error) or type(error).__name__
            said = f"no agent answers on {address}: {printable(shorten(why))}"
        else:
            said = _NO_AGENT.format(address)
        raise NoAnswerError(said) from None
    finally:
        if watch is not None:
            watch.cancel()
        connection.close()


def _refusal(address: Address, method: str, status_code: int, text: str) -> str:
    if method == "GET":
        return f"{address} answers {status_code}: is it an evscrub agent?"
    if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"the agent on {address} is of another release, which cannot retry"
    said = printable(shorten(" ".join(text.split())))
    return f"{address} refuses, with status {status_code}: {said or 'without a reason'}"


def _cut(connected: socket.socket, late: threading.Event) -> None:
    late.set()
    with suppress(OSError):  # it is closed
        connected.shutdown(socket.SHUT_RDWR)
