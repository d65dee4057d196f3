# SPDX-License-Identifier: Apache-2.0
"""Runs calls on the registry in threads, and leaves it alone for a while when it is away."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio
from oslo_log import log as logging

from evscrub.clock import Clock
from evscrub.registry.database import UNAVAILABLE
from evscrub.registry.faults import is_of_rows

LOG = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 5.0
#: A look, claims of a few stores, and a settlement or a renewal at the same time.
_THREADS = 6


class RegistryAwayError(Exception):
    """The registry does not answer."""


class RegistryCalls:
    """Calls on the registry, with what is known of whether it answers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._threads = anyio.CapacityLimiter(_THREADS)
        self._back_at = 0.0
        self._failing = False

    @property
    def away_seconds(self) -> float:
        """How long to leave the registry alone; 0 while it answers."""
        return max(0.0, self._back_at - self._clock.boot())

    @property
    def is_away(self) -> bool:
        """Whether the last call failed, and lately: without work nobody asks again."""
        return self._failing and self._clock.boot() < self._back_at + 2 * RETRY_SECONDS

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Run `function` in a thread.

        Abandoned when cancelled, which happens only when the process ends.

        :raises RegistryAwayError: it failed, after its own retries.
        :raises oslo_db.exception.DBError: rows cannot be read, or take no change.
        """
        try:
            result = await anyio.to_thread.run_sync(
                partial(function, *arguments), limiter=self._threads, abandon_on_cancel=True
            )
        except UNAVAILABLE as error:
            if is_of_rows(error):
                raise
            self._back_at = self._clock.boot() + RETRY_SECONDS
            if not self._failing:
                self._failing = True
                LOG.warning(
                    "The registry cannot be used: %s; trying again every %.0f s",
                    type(error).__name__,
                    RETRY_SECONDS,
                )
            raise RegistryAwayError from error
        if self._failing:
            self._failing = False
            LOG.info("The registry answers again")
        return result
