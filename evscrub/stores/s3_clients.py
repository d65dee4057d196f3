# SPDX-License-Identifier: Apache-2.0
"""Make the deletes of an s3 store share boto3's sessions and clients, and their connections.

The driver creates both for each request. A session reads boto3's models, which takes 100 ms of
processor time, and a client takes 8 ms, five times as long as a request.
"""

import functools
import sys
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

from evscrub.stores.faults import Driver

#: As many as an agent can have requests at a time; connections are opened as they are needed.
_CONNECTIONS = 4096


def share() -> None:
    """Let the driver use shared sessions from now on, if it is imported and does not do so yet."""
    driver: Driver = sys.modules.get("glance_store._drivers.s3")
    if driver is None or not isinstance(driver.boto_session, ModuleType):
        return
    make: Callable[..., Any] = driver.boto_session.Session
    pooled = driver.boto_client.Config(max_pool_connections=_CONNECTIONS)
    lock = threading.Lock()  # clients are thread-safe, their creation is not

    @functools.cache
    def session(**credentials: str) -> SimpleNamespace:
        own = make(**credentials)
        clients: dict[str, Any] = {}

        def client(**options: Any) -> Any:  # noqa: ANN401 - boto3's own
            key = _key(options)
            with lock:
                if key not in clients:
                    config = options["config"].merge(pooled)
                    clients[key] = own.client(**options | {"config": config})
                return clients[key]

        return SimpleNamespace(client=client)

    driver.boto_session = SimpleNamespace(Session=session)


def _key(options: dict[str, Any]) -> str:
    """Return a key that is the same for equal options; botocore's configurations do not compare."""
    values = options | {"config": vars(options["config"])}
    return repr(sorted(values.items()))
