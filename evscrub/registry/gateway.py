# SPDX-License-Identifier: Apache-2.0
"""Call the registry in threads, and pause calls while it is down.

The registry is down when a call fails after its own retries, or when calls are pending and none has
been answered for too long, because a frozen server closes no connection. A server that answers but
rejects writes, such as a primary that became a replica, is down until it accepts one.
"""

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
#: How long calls may be pending without an answer to any of them.
SILENT_SECONDS = 10.0
#: For a look, claims for a few stores, a page of a sweep, and one of the index of shared data.
_THREADS = 8
#: For calls with a patience: a settlement, a renewal of claims, and a question whether the registry
#: is back. They do not wait for claims that hang, or leases would expire meanwhile.
_PATIENT_THREADS = 4
_TICK_SECONDS = 1.0
#: A tick that comes this late shows that the process was stopped, not the registry.
_LATE_SECONDS = 3.0


class RegistryAwayError(Exception):
    """The registry is down."""


@dataclass(frozen=True, slots=True)
class GatewayStatistics:
    """What is known at one moment of whether the registry answers.

    :param is_away: it failed the last call, answers none, or takes no changes.
    :param refuses_changes: it is away because it answers but takes no changes.
    """

    is_away: bool
    refuses_changes: bool


class Registry(Protocol):
    """The methods of :class:`~evscrub.registry.database.Database` that are used here."""

    def now(self) -> object:
        """Run a query that is quickly answered."""

    def try_to_write(self) -> None:
        """Write to no row, but raise if the server rejects writes."""

    def dispose(self) -> None:
        """Close idle connections."""


class RegistryGateway:
    """Calls the registry and tracks whether it is down.

    :param silent_seconds: how long calls may be pending without an answer to any of them.
    """

    def __init__(
        self, clock: Clock, registry: Registry, silent_seconds: float = SILENT_SECONDS
    ) -> None:
        self.silent_seconds = silent_seconds
        self._clock = clock
        self._registry = registry
        self._threads = anyio.CapacityLimiter(_THREADS)
        self._patient_threads = anyio.CapacityLimiter(_PATIENT_THREADS)
        self._outage = Outage(
            "The registry",
            f"Nothing is claimed meanwhile; trying again every {RETRY_SECONDS:.0f} s",
            clock.boot,
        )
        self._back_at = 0.0
        self._refuses_changes = False
        self._answered_at = -math.inf
        #: Start times of the pending calls.
        self._waiting: dict[object, float] = {}
        self._begun = anyio.Event()  #: set by a call, for :meth:`run`

    @property
    def away_seconds(self) -> float:
        """Seconds until the registry is called again; 0 while it is up."""
        return max(0.0, self._back_at - self._clock.boot())

    @property
    def is_away(self) -> bool:
        """Whether the registry is down."""
        return self._outage.is_on

    @property
    def refuses_changes(self) -> bool:
        """Whether the registry is down because it answers but rejects writes."""
        return self._refuses_changes

    def statistics(self) -> GatewayStatistics:
        """Return whether the registry answers."""
        return GatewayStatistics(self.is_away, self.refuses_changes)

    async def call(
        self, function: Callable[..., T], *arguments: object, patience_seconds: float = math.inf
    ) -> T:
        """Run a function in a thread and return its result.

        A cancelled call is abandoned in its thread; that happens only when the process ends.

        :param function: blocks; safe to run twice, even at the same time, if it has a patience.
        :param patience_seconds: how long to wait for it. After that the call is abandoned in its
            thread, where it may still take effect.
        :raises RegistryAwayError: it failed after its own retries, or took too long.
        :raises oslo_db.exception.DBError: rows cannot be read or changed.
        """
        limiter = self._threads if math.isinf(patience_seconds) else self._patient_threads
        call = object()
        self._waiting[call] = self._clock.boot()
        self._begun.set()
        try:
            with anyio.move_on_after(patience_seconds):
                result = await anyio.to_thread.run_sync(
                    partial(function, *arguments), limiter=limiter, abandon_on_cancel=True
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
        """Detect a registry that stops answering and one that is up again, until cancelled."""
        last = self._clock.boot()
        while True:
            if not self._waiting and not self.is_away:
                self._begun = anyio.Event()
                await self._begun.wait()
                last = min(self._waiting.values(), default=self._clock.boot())
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
            try:
                await self._ask_whether_back()
            except RegistryAwayError:
                pass
            except Exception as error:  # noqa: BLE001 - such as OSError without a file descriptor
                self._failed(type(error).__name__)

    async def _ask_whether_back(self) -> None:
        """Repeat the kind of call that failed; like any call, its success ends the outage.

        :raises RegistryAwayError: the registry is still down.
        """
        if self._refuses_changes:
            await self.call(self._registry.try_to_write, patience_seconds=self.silent_seconds)
            self._refuses_changes = False
            self._answered()
        else:
            await self.call(self._registry.now, patience_seconds=self.silent_seconds)

    async def _silent(self, seconds: float) -> None:
        """Record that the pending calls are not answered.

        They may end much later, by the timeouts of their connections, and are not tracked until
        then. Idle connections are closed, because they may lead to the same frozen server while
        new ones may lead to another.
        """
        self._failed(f"it has not answered for {seconds:.0f} s")
        self._waiting.clear()
        await anyio.to_thread.run_sync(self._registry.dispose, abandon_on_cancel=True)

    def _answered(self) -> None:
        self._answered_at = self._clock.boot()
        if not self._refuses_changes:  # an answered read does not show that it accepts writes
            self._back_at = 0.0
            self._outage.back()

    def _failed(self, why: str) -> None:
        self._back_at = self._clock.boot() + RETRY_SECONDS
        self._outage.away(why)
