# SPDX-License-Identifier: Apache-2.0
"""Share clients of a store among its deletes for a few seconds each."""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

#: How long a client is used. A connection that idles for longer may have been dropped on its way,
#: which shows only as a request that fails, or that waits a minute for its answer.
LIFE_SECONDS = 10.0
#: How much later it is closed; who has just got it may be about to send a request.
GRACE_SECONDS = 1.0
#: As many connections as an agent can have requests at a time; they are opened as they are needed.
CONNECTIONS = 4096


class Client(Protocol):
    """Has connections, and may be used by several threads at a time, also after it was closed."""

    def close(self) -> None:
        """Close the connections that no request uses."""


C = TypeVar("C", bound=Client)


@dataclass(frozen=True, slots=True)
class _Shared(Generic[C]):
    client: C
    since: float


class ShortLived(Generic[C]):
    """Clients by what they are for. Thread-safe.

    A client is closed when one is asked for: connections of the last ones stay open, idle, as long
    as there is nothing to delete and the server keeps them.

    :param clock: returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._clients: dict[Hashable, _Shared[C]] = {}
        self._retired: list[_Shared[C]] = []

    def get(self, key: Hashable, make: Callable[[], C]) -> C:
        """Return the client for a key, created again every :data:`LIFE_SECONDS`.

        :param make: makes one; only one thread at a time does so.
        """
        with self._lock:
            now = self._clock()
            self._retire(now)
            if key not in self._clients:
                self._clients[key] = _Shared(make(), now)
            return self._clients[key].client

    def _retire(self, now: float) -> None:
        """Give out no client that is old, and close those that are older."""
        old = [key for key, each in self._clients.items() if now - each.since >= LIFE_SECONDS]
        self._retired += [self._clients.pop(key) for key in old]
        while self._retired and now - self._retired[0].since >= LIFE_SECONDS + GRACE_SECONDS:
            self._retired.pop(0).client.close()
