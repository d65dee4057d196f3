# SPDX-License-Identifier: Apache-2.0
"""Client of an agent's status port."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from evscrub.domain.address import Address

_SECONDS = 5.0
_NO_AGENT = "the server on {} is not an evscrub agent"


class NoAnswerError(Exception):
    """Raised if no agent answers; the message says where and why."""


def status(address: Address) -> dict[str, Any]:
    """Return the content of ``/status``.

    :raises NoAnswerError: no agent answers within 5 seconds, or the server is not an agent.
    """
    with _get(address, "/status") as answer:
        found: object = json.loads(answer.read())
        if not isinstance(found, dict) or "agent" not in found:
            raise NoAnswerError(_NO_AGENT.format(address))
        return found


def troubles(address: Address) -> Iterator[dict[str, Any]]:
    """Yield the records of ``/troubles``: one for each image (``id``) and stopped ``store``.

    :raises NoAnswerError: no agent answers within 5 seconds, or the server is not an agent.
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
            raise NoAnswerError(f"{address} answers {answer.status}: is it an evscrub agent?")
        yield answer
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(f"no agent answers on {address}: {error or type(error)}") from None
    except ValueError:
        raise NoAnswerError(_NO_AGENT.format(address)) from None
    finally:
        connection.close()
