# SPDX-License-Identifier: Apache-2.0
"""Bounds how long PostgreSQL's clients wait for an answer, for which libpq has no option.

Its ``tcp_user_timeout`` and keepalives see a host that is gone, but not a server that is frozen,
whose kernel still acknowledges all that comes. A thread shuts the sockets of those that have waited
too long, and they find their connection lost.
"""

import functools
import importlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Watch:
    """One wait for an answer.

    :param descriptor: the socket's; a duplicate is kept, for the client may close its own and
        another thread reuse the number.
    """

    def __init__(self, descriptor: int, ends_at: float) -> None:
        self.descriptor = os.dup(descriptor)
        self.ends_at = ends_at
        self.expired = False

    def shut(self) -> None:
        """Shut the socket in both directions, for all who have it."""
        self.expired = True
        with suppress(OSError), socket.socket(fileno=os.dup(self.descriptor)) as shared:
            shared.shutdown(socket.SHUT_RDWR)


class Watchdog:
    """Shuts the sockets of those that have waited too long.

    :param seconds: how long one may wait.
    :param clock: seconds on an axis that only goes forward.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        #: In the order of their ends, since all may take as long.
        self._watches: dict[Watch, None] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, descriptor: int, lost: type[Exception]) -> Iterator[None]:
        """Watch a wait that begins here and ends with the block.

        :param lost: the driver's error for a connection that is lost; raised when it took too long.
        """
        watch = self._begin(descriptor)
        try:
            yield
        except Exception:
            if watch.expired:
                raise lost(f"the server did not answer within {self.seconds:g} s") from None
            raise
        finally:
            self._end(watch)

    def _begin(self, descriptor: int) -> Watch:
        watch = Watch(descriptor, self._clock() + self.seconds)
        with self._changed:
            self._watches[watch] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            elif len(self._watches) == 1:
                self._changed.notify()
        return watch

    def _end(self, watch: Watch) -> None:
        with self._changed:
            self._watches.pop(watch, None)
        os.close(watch.descriptor)

    def _run(self) -> None:
        with self._changed:
            while True:
                first = next(iter(self._watches), None)
                left = None if first is None else first.ends_at - self._clock()
                if first is not None and left is not None and left <= 0:
                    del self._watches[first]
                    first.shut()
                else:
                    self._changed.wait(left)


def connect_psycopg2(seconds: float, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - the driver's
    """Connect with psycopg2; no wait for an answer takes longer than `seconds`."""
    driver = importlib.import_module("psycopg2")
    connection, cursor = _psycopg2_classes(seconds)
    options.setdefault("cursor_factory", cursor)
    return driver.connect(*arguments, connection_factory=connection, **options)


def connect_psycopg(seconds: float, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - the driver's
    """Connect with psycopg; no wait for an answer takes longer than `seconds`."""
    return _psycopg_class(seconds).connect(*arguments, **options)


@functools.cache
def _psycopg2_classes(seconds: float) -> tuple[type, type]:
    extensions = importlib.import_module("psycopg2.extensions")
    lost = importlib.import_module("psycopg2").OperationalError
    watching = Watchdog(seconds).watching

    class Cursor(extensions.cursor):  # type: ignore[misc, name-defined] # imported at run time
        def execute(self, *arguments: Any) -> None:  # noqa: ANN401 - the driver's
            with watching(self.connection.fileno(), lost):
                super().execute(*arguments)

        def executemany(self, *arguments: Any) -> None:  # noqa: ANN401 - the driver's
            with watching(self.connection.fileno(), lost):
                super().executemany(*arguments)

    class Connection(extensions.connection):  # type: ignore[misc, name-defined] # as above
        def commit(self) -> None:
            with watching(self.fileno(), lost):
                super().commit()

        def rollback(self) -> None:
            with watching(self.fileno(), lost):
                super().rollback()

        def set_client_encoding(self, encoding: str) -> None:
            with watching(self.fileno(), lost):
                super().set_client_encoding(encoding)

    return Connection, Cursor


@functools.cache
def _psycopg_class(seconds: float) -> Any:  # noqa: ANN401 - a class of the driver's
    driver = importlib.import_module("psycopg")
    watching = Watchdog(seconds).watching

    class Connection(driver.Connection):  # type: ignore[misc, name-defined] # imported at run time
        def wait(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - the driver's
            with watching(self.fileno(), driver.OperationalError):
                return super().wait(*arguments, **options)

    return Connection
