# SPDX-License-Identifier: Apache-2.0
"""The parts of an agent that its status is read from."""

from dataclasses import dataclass

from evscrub.clock import DatabaseClock
from evscrub.delay_queue import DelayQueue
from evscrub.listener import Listener
from evscrub.registry.database import Database
from evscrub.scrubber import Scrubber
from evscrub.sweep import Sweep


@dataclass(frozen=True, slots=True)
class Sources:
    """Parts of one agent, each read and none changed."""

    queue: DelayQueue
    scrubber: Scrubber
    listener: Listener
    sweep: Sweep
    database: Database
    database_clock: DatabaseClock

    @property
    def registry_answers(self) -> bool:
        """Whether the registry answered those who asked it last."""
        return not self.scrubber.calls.is_away
