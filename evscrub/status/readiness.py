# SPDX-License-Identifier: Apache-2.0
"""Whether an agent can do its work."""

import anyio

from evscrub.domain.clock import DatabaseClock
from evscrub.intake.sweep import Sweep
from evscrub.registry.database import UNAVAILABLE, Database, read_now
from evscrub.registry.gateway import RegistryGateway
from evscrub.scrubbing.claimer import disputed

_PROBE_SECONDS = 3.0


class Readiness:
    """Asks the registry, one question at a time however many want to know."""

    def __init__(
        self,
        database: Database,
        database_clock: DatabaseClock,
        calls: RegistryGateway,
        sweep: Sweep,
    ) -> None:
        self._database = database
        self._database_clock = database_clock
        self._calls = calls
        self._sweep = sweep
        self._thread = anyio.CapacityLimiter(1)

    async def what_lacks(self) -> list[str]:
        """What must happen before the agent is ready; nothing when it is."""
        lacking = []
        if self._calls.refuses_changes:
            lacking.append("the registry takes no changes")
        elif self._calls.is_away or not await self._registry_answers():
            lacking.append("the registry does not answer")
        if not self._sweep.count:
            lacking.append("the first sweep is not done")
        if self._database_clock.dispute_seconds is not None:
            lacking.append(f"nothing is claimed: {disputed(self._database_clock)}")
        return lacking

    async def _registry_answers(self) -> bool:
        with anyio.move_on_after(_PROBE_SECONDS):
            try:
                await anyio.to_thread.run_sync(
                    self._ask, limiter=self._thread, abandon_on_cancel=True
                )
            except UNAVAILABLE:
                return False
            return True
        return False

    def _ask(self) -> None:
        with self._database.reading() as connection:
            read_now(connection)
