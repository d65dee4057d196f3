# SPDX-License-Identifier: Apache-2.0
"""State and services that all parts of a scrubber share."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import anyio

from evscrub.config.settings import Settings
from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.flow_control.share import ShareGate
from evscrub.registry.database import Database
from evscrub.registry.gateway import SILENT_SECONDS, RegistryGateway
from evscrub.telemetry.statistics import Record, Scrubbed, Trouble


class Observers(NamedTuple):
    """Callbacks for the end of an image.

    :param on_scrubbed: called once an image is complete, whether or not data was deleted.
    :param on_parked: called with the id of an image when it is parked.
    """

    on_scrubbed: Callable[[Scrubbed], None] = lambda _: None
    on_parked: Callable[[str, Trouble], None] = lambda *_: None


NOBODY = Observers()


class Wakeup:
    """An event that one task waits for repeatedly."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the task, or make its next :meth:`wait` return at once."""
        self._event.set()

    def clear(self) -> None:
        """Discard an earlier :meth:`set`."""
        self._event = anyio.Event()

    async def wait(self, seconds: float) -> None:
        """Wait until :meth:`set` is called, or until the timeout.

        :param seconds: the timeout.
        """
        with anyio.move_on_after(seconds):
            await self._event.wait()


@dataclass(slots=True)
class Context:
    """State and services that all parts of a scrubber share.

    :param settings: current options; replaced when they change, so read them at each use.
    :param share: tells whether limits may be used now that a group of agents shares.
    :param wakeup: set when a step may be started.
    :param uniform: returns a random number between two bounds, for jitter.
    """

    settings: Settings
    database_clock: DatabaseClock
    calls: RegistryGateway
    record: Record = field(default_factory=Record)
    uniform: Callable[[float, float], float] = random.uniform
    wakeup: Wakeup = field(default_factory=Wakeup, init=False)
    share: ShareGate = field(init=False)

    def __post_init__(self) -> None:
        self.share = ShareGate(self.clock)

    @classmethod
    def create(
        cls, settings: Settings, database: Database, database_clock: DatabaseClock
    ) -> "Context":
        """Return a context whose registry calls count as silent before a lease can expire."""
        silent_seconds = min(SILENT_SECONDS, settings.policy.claim_timeout.total_seconds() / 2)
        calls = RegistryGateway(database_clock.clock, database, silent_seconds)
        return cls(settings, database_clock, calls)

    @property
    def clock(self) -> Clock:
        return self.database_clock.clock

    @property
    def may_begin(self) -> bool:
        """Whether deletes may be started: no limit is shared, or this agent has a share of it."""
        return self.share.is_open or not self.settings.is_shared

    @property
    def lease_seconds(self) -> float:
        """Age at which a lease expires, ``claim_timeout`` in seconds."""
        return self.settings.policy.claim_timeout.total_seconds()
