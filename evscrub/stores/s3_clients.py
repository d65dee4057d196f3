# SPDX-License-Identifier: Apache-2.0
"""Make the deletes of an s3 store share boto3's sessions and clients, and their connections.

The driver creates both for each delete. A session reads boto3's models, which takes 100 ms of
processor time, and a client takes 8 ms, five times as long as a request.
"""

import functools
import sys
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

from evscrub.stores.faults import Driver
from evscrub.stores.short_lived import CONNECTIONS, ShortLived


class _Session:
    """A session of boto3 that shares its clients. Thread-safe."""

    def __init__(self, session: Any, config: Any, clock: Callable[[], float]) -> None:  # noqa: ANN401 - boto3 is not typed
        self._session = session
        self._config = config
        # Clients are thread-safe, their creation is not.
        self._clients: ShortLived[Any] = ShortLived(clock)

    def client(self, **options: Any) -> Any:  # noqa: ANN401 - as above
        def make() -> Any:  # noqa: ANN401 - as above
            config = options["config"].merge(self._config)
            return self._session.client(**options | {"config": config})

        return self._clients.get(_key(options), make)


def share(clock: Callable[[], float] = time.monotonic) -> None:
    """Let the driver use shared sessions from now on, if it is imported and does not do so yet.

    :param clock: returns monotonic seconds.
    """
    driver: Driver = sys.modules.get("glance_store._drivers.s3")
    if driver is None or not isinstance(driver.boto_session, ModuleType):
        return
    make: Callable[..., Any] = driver.boto_session.Session
    config = driver.boto_client.Config(max_pool_connections=CONNECTIONS)

    @functools.cache
    def session(**credentials: str) -> _Session:
        return _Session(make(**credentials), config, clock)

    driver.boto_session = SimpleNamespace(Session=session)


def _key(options: dict[str, Any]) -> str:
    """Return a key that is the same for equal options; botocore's configurations do not compare."""
    values = options | {"config": vars(options["config"])}
    return repr(sorted(values.items()))
