# SPDX-License-Identifier: Apache-2.0
"""Asks an agent on its status port how it stands and which images are in trouble."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from evscrub.domain.address import Address

_SECONDS = 5.0
_NO_AGENT = "what answers on {} is no agent"


class NoAnswerError(Exception):
    """No agent answers there; the message says where and why."""


def status(address: Address) -> dict[str, Any]:
    """Return what ``/status`` has.

    :raises NoAnswerError: no agent answers, or something else does.
    """
    with _get(address, "/status") as answer:
        found: object = json.loads(answer.read())
        if not isinstance(found, dict) or "agent" not in found:
            raise NoAnswerError(_NO_AGENT.format(address))
        return found


def troubles(address: Address) -> Iterator[dict[str, Any]]:
    """Yield what ``/troubles`` has: a line for each image, by ``id``, and for each ``store``.

    :raises NoAnswerError: no agent answers, or something else does.
    """
    with _get(address, "/troubles") as answer:
        for line in answer:
            told = json.loads(line)
            if not isinstance(told, dict) or not {"id", "store"} & told.keys():
                raise NoAnswerError(_NO_AGENT.format(address))
            yield told


@contextmanager
def _get(address: Address, path: str) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise NoAnswerError(f"{address} answers {answer.status}: is it an agent?")
        yield answer
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(f"no agent answers on {address}: {error or type(error)}") from None
    except ValueError:
        raise NoAnswerError(_NO_AGENT.format(address)) from None
    finally:
        connection.close()
