# SPDX-License-Identifier: Apache-2.0
"""What all parts of a scrubber share."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import anyio

from evscrub.config.settings import Settings
from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.registry.database import Database
from evscrub.registry.gateway import SILENT_SECONDS, RegistryGateway
from evscrub.telemetry.statistics import Record, Scrubbed, Trouble


class Observers(NamedTuple):
    """Who is told of images.

    :param on_scrubbed: told of each image that nothing is left to do about.
    :param on_parked: told of each image, by id, that only an operator can help.
    """

    on_scrubbed: Callable[[Scrubbed], None] = lambda _: None
    on_parked: Callable[[str, Trouble], None] = lambda *_: None


NOBODY = Observers()


class Wakeup:
    """Lets one task sleep until there is something to do."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the task, or keep it from sleeping next."""
        self._event.set()

    def clear(self) -> None:
        """Forget what was set before."""
        self._event = anyio.Event()

    async def wait(self, seconds: float) -> None:
        """Sleep until :meth:`set` is called, at most so long."""
        with anyio.move_on_after(seconds):
            await self._event.wait()


@dataclass(slots=True)
class Context:
    """What all parts of a scrubber share.

    :param settings: replaced when options change; read at each use.
    :param wakeup: set where there is something to start.
    :param uniform: draws a number between two, for jitter.
    """

    settings: Settings
    database_clock: DatabaseClock
    calls: RegistryGateway
    record: Record = field(default_factory=Record)
    uniform: Callable[[float, float], float] = random.uniform
    wakeup: Wakeup = field(default_factory=Wakeup)

    @classmethod
    def create(
        cls, settings: Settings, database: Database, database_clock: DatabaseClock
    ) -> "Context":
        """Return a context whose calls time out before a lease does."""
        silent_seconds = min(SILENT_SECONDS, settings.policy.claim_timeout.total_seconds() / 2)
        calls = RegistryGateway(database_clock.clock, database, silent_seconds)
        return cls(settings, database_clock, calls)

    @property
    def clock(self) -> Clock:
        return self.database_clock.clock

    @property
    def lease_seconds(self) -> float:
        """How old a lease may get."""
        return self.settings.policy.claim_timeout.total_seconds()
