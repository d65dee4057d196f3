# SPDX-License-Identifier: Apache-2.0
"""The parts of an agent that its status is read from."""

from dataclasses import dataclass

from evscrub.domain.clock import DatabaseClock
from evscrub.intake.listener import Listener
from evscrub.intake.sweep import Sweep
from evscrub.queueing.delay_queue import DelayQueue
from evscrub.registry.database import Database
from evscrub.scrubbing.scrubber import Scrubber


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
