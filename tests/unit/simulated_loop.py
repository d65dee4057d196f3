# SPDX-License-Identifier: Apache-2.0
"""An event loop whose clock is simulated: when nothing can run, it is the next timer's time."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")

#: What one turn of the loop takes. A clock that stood still would let two floats a rounding error
#: apart wait for each other for ever, which no real clock does.
TURN_SECONDS = 1e-7


class SimulatedSelector(selectors.SelectSelector):
    """Lets time pass where another would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everybody waits for somebody else")
        self.now += max(timeout, TURN_SECONDS)
        return []  # no file is waited for, only timers


class SimulatedLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self.selector = SimulatedSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


def run(function: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function under anyio, in as much time as its computing takes."""
    return anyio.run(function, backend_options={"loop_factory": SimulatedLoop})


def skip(seconds: float) -> None:
    """Let time pass, within a coroutine that :func:`run` runs, as if something blocked the loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    loop.selector.now += seconds
