# SPDX-License-Identifier: Apache-2.0
"""Runs calls on the registry in threads, and leaves it alone for a while when it is away.

It is away when a call failed after its own retries, and when calls wait and none was answered for
too long: a server that is frozen hangs nothing up. One that answers but takes no changes, such as a
primary that became a replica, is away until it takes one.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import anyio

from evscrub.domain.clock import Clock
from evscrub.registry.database import UNAVAILABLE
from evscrub.registry.errors import explain, is_read_only
from evscrub.registry.faults import is_of_rows
from evscrub.telemetry.outage import Outage

T = TypeVar("T")

RETRY_SECONDS = 5.0
#: How long calls may wait without any being answered.
SILENT_SECONDS = 10.0
#: A look, claims of a few stores, a settlement or a renewal, and a page of a sweep at a time.
_THREADS = 7
_TICK_SECONDS = 1.0
#: A tick that comes this late says that the process itself was stopped, and not the registry.
_LATE_SECONDS = 3.0


class RegistryAwayError(Exception):
    """The registry does not answer."""


@dataclass(frozen=True, slots=True)
class CallsStatistics:
    """What is known at one moment of whether the registry answers.

    :param is_away: it failed the last call, answers none, or takes no changes.
    :param refuses_changes: it is away because it answers but takes no changes.
    """

    is_away: bool
    refuses_changes: bool


class Registry(Protocol):
    """The part of :class:`~evscrub.registry.database.Database` that is needed here."""

    def now(self) -> object:
        """Ask a question that is quickly answered."""

    def try_to_write(self) -> None:
        """Change no row, but fail where changes are refused."""

    def dispose(self) -> None:
        """Close idle connections."""


class RegistryCalls:
    """Calls on the registry, with what is known of whether it answers.

    :param silent_seconds: how long calls may wait without any being answered.
    """

    def __init__(
        self, clock: Clock, registry: Registry, silent_seconds: float = SILENT_SECONDS
    ) -> None:
        self.silent_seconds = silent_seconds
        self._clock = clock
        self._registry = registry
        self._threads = anyio.CapacityLimiter(_THREADS)
        self._outage = Outage(
            "The registry",
            f"Nothing is claimed meanwhile; trying again every {RETRY_SECONDS:.0f} s",
            clock.boot,
        )
        self._back_at = 0.0
        self._refuses_changes = False
        self._answered_at = -math.inf
        #: When each call that waits was begun.
        self._waiting: dict[object, float] = {}

    @property
    def away_seconds(self) -> float:
        """How long to leave the registry alone; 0 while it answers."""
        return max(0.0, self._back_at - self._clock.boot())

    @property
    def is_away(self) -> bool:
        """Whether it failed the last call, answers none, or takes no changes."""
        return self._outage.is_on

    @property
    def refuses_changes(self) -> bool:
        """Whether it is away since it answers but takes no changes."""
        return self._refuses_changes

    def statistics(self) -> CallsStatistics:
        """Return whether the registry answers."""
        return CallsStatistics(self.is_away, self.refuses_changes)

    async def call(
        self, function: Callable[..., T], *arguments: object, patience_seconds: float = math.inf
    ) -> T:
        """Run `function` in a thread.

        Abandoned when cancelled, which happens only when the process ends.

        :param patience_seconds: how long to wait; then the call is abandoned in its thread, where
            it may still have its effect. For calls that may run twice, even at the same time.
        :raises RegistryAwayError: it failed, after its own retries, or took too long.
        :raises oslo_db.exception.DBError: rows cannot be read, or take no change.
        """
        call = object()
        self._waiting[call] = self._clock.boot()
        try:
            with anyio.move_on_after(patience_seconds):
                result = await anyio.to_thread.run_sync(
                    partial(function, *arguments), limiter=self._threads, abandon_on_cancel=True
                )
                self._answered()
                return result
        except UNAVAILABLE as error:
            if is_of_rows(error):
                self._answered()
                raise
            self._refuses_changes |= is_read_only(error)
            self._failed(explain(error))
            raise RegistryAwayError from error
        finally:
            self._waiting.pop(call, None)
        await self._silent(patience_seconds)
        raise RegistryAwayError

    async def run(self) -> None:
        """Watch for silence, and while the registry is away ask whether it is back; for ever."""
        last = self._clock.boot()
        while True:
            await anyio.sleep(_TICK_SECONDS)
            now = self._clock.boot()
            if now - last > _LATE_SECONDS:
                self._answered_at = now
            last = now
            await self._look(now)

    async def _look(self, now: float) -> None:
        since = max(self._answered_at, min(self._waiting.values(), default=now))
        if now - since >= self.silent_seconds:
            await self._silent(now - since)
        elif self.is_away and not self.away_seconds:
            with contextlib.suppress(RegistryAwayError):
                await self._ask_whether_back()

    async def _ask_whether_back(self) -> None:
        """Ask for what it failed to do; its answer counts as any other's.

        :raises RegistryAwayError: it is not back.
        """
        if self._refuses_changes:
            await self.call(self._registry.try_to_write, patience_seconds=self.silent_seconds)
            self._refuses_changes = False
            self._answered()
        else:
            await self.call(self._registry.now, patience_seconds=self.silent_seconds)

    async def _silent(self, seconds: float) -> None:
        """Take in that calls wait in vain.

        They may end long after, by the time-outs of their connections, and count no more. Idle
        connections may be to the same frozen server, and new ones to another.
        """
        self._failed(f"it has not answered for {seconds:.0f} s")
        self._waiting.clear()
        await anyio.to_thread.run_sync(self._registry.dispose, abandon_on_cancel=True)

    def _answered(self) -> None:
        self._answered_at = self._clock.boot()
        if not self._refuses_changes:  # it answers reads all along
            self._back_at = 0.0
            self._outage.back()

    def _failed(self, why: str) -> None:
        self._back_at = self._clock.boot() + RETRY_SECONDS
        self._outage.away(why)
