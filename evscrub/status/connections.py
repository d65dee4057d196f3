# SPDX-License-Identifier: Apache-2.0
"""Bounds the status server's connections so that no client can shut the others out."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio


class Connections:
    """The open connections, by what they wait for.

    :param most_reading: connections whose request is incomplete, at least 1.
    :param most_answering: requests that are answered at a time, at least 1.
    """

    def __init__(self, most_reading: int, most_answering: int) -> None:
        self._most_reading = most_reading
        self._most_answering = most_answering
        self._reading: dict[anyio.CancelScope, None] = {}  # oldest first
        self._answering = 0

    @contextmanager
    def reading(self, seconds: float) -> Iterator[None]:
        """Allow a client so many seconds to send its request.

        Cancels the block when they are over. Where too many clients have sent nothing yet, also
        cancels the block of the client that has been silent for longest.
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
        """Count a request that is being answered; cancel the block after so many seconds."""
        self._answering += 1
        try:
            with anyio.move_on_after(seconds):
                yield
        finally:
            self._answering -= 1
