# SPDX-License-Identifier: Apache-2.0
"""Limits on the open connections of the HTTP server."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio


class Connections:
    """Limits on open connections, so that no client can lock the others out.

    :param most_reading: maximum connections with an incomplete request, at least 1.
    :param most_answering: maximum concurrent answers, at least 1.
    """

    def __init__(self, most_reading: int, most_answering: int) -> None:
        self._most_reading = most_reading
        self._most_answering = most_answering
        self._reading: dict[anyio.CancelScope, None] = {}  # oldest first
        self._answering = 0

    @contextmanager
    def reading(self, seconds: float) -> Iterator[None]:
        """Limit the time that a client takes to send its request.

        Cancels the block at the timeout. If too many connections are in such a block, also cancels
        the oldest block.

        :param seconds: the timeout.
        """
        if len(self._reading) >= self._most_reading:
            silent = next(iter(self._reading))
            del self._reading[silent]
            silent.cancel()
        with anyio.move_on_after(seconds) as scope:
            self._reading[scope] = None
            try:
                yield
            finally:
                self._reading.pop(scope, None)

    @property
    def may_answer(self) -> bool:
        """Whether another request may be answered now."""
        return self._answering < self._most_answering

    @contextmanager
    def answering(self, seconds: float) -> Iterator[None]:
        """Count a request that is being answered, and limit its time.

        :param seconds: the timeout, at which the block is cancelled.
        """
        self._answering += 1
        try:
            with anyio.move_on_after(seconds):
                yield
        finally:
            self._answering -= 1
