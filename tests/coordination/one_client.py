# SPDX-License-Identifier: Apache-2.0
"""Lets an agent's s3 driver keep its client, once this is imported; runs evscrub as a program.

The driver makes a client for each operation, which takes several times as long as the two requests
that follow: three agents at fifty deletes a second would need two processors for that alone, and
the requests would come in when these are free rather than when the agents' limits say. Requests
stay what they are.
"""

import sys
from typing import Any

from glance_store._drivers import s3

from evscrub import cli

_make = s3.Store._create_s3_client
_clients: dict[tuple[str, str], Any] = {}


def _client(store: Any) -> Any:
    key = (store._option_get("s3_store_host"), store.access_key)
    if key not in _clients:
        _clients[key] = _make(store)
    return _clients[key]


s3.Store._create_s3_client = _client

if __name__ == "__main__":
    sys.exit(cli.main())
