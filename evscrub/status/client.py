# SPDX-License-Identifier: Apache-2.0
"""Asks an agent on its status port which images are in trouble."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

from evscrub.status.address import Address

_SECONDS = 5.0


class NoAnswerError(Exception):
    """No agent answers there; the message says where and why."""


def troubles(address: Address) -> Iterator[dict[str, Any]]:
    """Yield what ``/troubles`` has, an image at a time.

    :raises NoAnswerError: no agent answers, or something else does.
    """
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_SECONDS)
    try:
        connection.request("GET", "/troubles")
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise NoAnswerError(f"{address} answers {answer.status}: is it an agent?")
        for line in answer:
            yield json.loads(line)
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(f"no agent answers on {address}: {error or type(error)}") from None
    except ValueError:
        raise NoAnswerError(f"what answers on {address} is no agent") from None
    finally:
        connection.close()
