# SPDX-License-Identifier: Apache-2.0
"""Make the deletes of an s3 store share boto3's sessions and clients, and their connections.

The driver creates both for each delete. A session reads boto3's models, which takes 100 ms of
processor time, and a client takes 8 ms, five times as long as a request.
"""

import functools
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

from evscrub.stores.faults import Driver

#: As many as an agent can have requests at a time; connections are opened as they are needed.
_CONNECTIONS = 4096
#: How long a client is used. A connection that idles for longer may have been dropped on its way,
#: which shows only as a request that fails, or that is not answered for a minute.
_LIFE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Shared:
    """A client with the one before it, whose last requests may still be under way."""

    client: Any
    since: float
    before: Any


class _Session:
    """A session of boto3 that shares its clients. Thread-safe."""

    def __init__(self, session: Any, config: Any, clock: Callable[[], float]) -> None:  # noqa: ANN401 - boto3 is not typed
        self._session = session
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()  # clients are thread-safe, their creation is not
        self._clients: dict[str, _Shared] = {}

    def client(self, **options: Any) -> Any:  # noqa: ANN401 - as above
        key = _key(options)
        with self._lock:
            now, shared = self._clock(), self._clients.get(key)
            if shared is None or now - shared.since >= _LIFE_SECONDS:
                if shared is not None and shared.before is not None:
                    shared.before.close()
                config = options["config"].merge(self._config)
                client = self._session.client(**options | {"config": config})
                before = None if shared is None else shared.client
                shared = self._clients[key] = _Shared(client, now, before)
            return shared.client


def share(clock: Callable[[], float] = time.monotonic) -> None:
    """Let the driver use shared sessions from now on, if it is imported and does not do so yet.

    :param clock: returns monotonic seconds.
    """
    driver: Driver = sys.modules.get("glance_store._drivers.s3")
    if driver is None or not isinstance(driver.boto_session, ModuleType):
        return
    make: Callable[..., Any] = driver.boto_session.Session
    config = driver.boto_client.Config(max_pool_connections=_CONNECTIONS)

    @functools.cache
    def session(**credentials: str) -> _Session:
        return _Session(make(**credentials), config, clock)

    driver.boto_session = SimpleNamespace(Session=session)


def _key(options: dict[str, Any]) -> str:
    """Return a key that is the same for equal options; botocore's configurations do not compare."""
    values = options | {"config": vars(options["config"])}
    return repr(sorted(values.items()))
