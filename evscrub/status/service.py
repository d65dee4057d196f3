# SPDX-License-Identifier: Apache-2.0
"""The status service of an agent."""

import time
from datetime import timedelta

import anyio

from evscrub.domain.address import Address
from evscrub.status.history import STEP_SECONDS, History
from evscrub.status.readiness import Readiness
from evscrub.status.routes import Routes
from evscrub.status.server import serve
from evscrub.status.snapshot import Snapshot, take
from evscrub.status.sources import Sources
from evscrub.status.space import SpaceReader
from evscrub.status.sparing import Sparing

#: The part of the event loop's time that looking may take: a million images take a while.
_SHARE = 0.02


async def run(address: Address | None, sources: Sources) -> None:
    """Show an agent's status until cancelled.

    :param address: where to listen; None for nowhere.
    """
    if address is None:
        return
    snapshot: Sparing[Snapshot] = Sparing(lambda: take(sources), time.monotonic, _SHARE)
    history = History(sources.scrubber.record)
    space = SpaceReader(sources.database, lambda: _kept(sources))
    calls = sources.scrubber.calls
    readiness = Readiness(sources.database, sources.database_clock, calls, sources.sweep)
    routes = Routes(sources, snapshot, history, space, readiness)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_keep_history, history, sources)
        tasks.start_soon(_keep_space, space, routes)
        await serve(address, routes.respond)


def _kept(sources: Sources) -> timedelta:
    """Return how recently an image was deleted that falls due beyond what sweeps look for."""
    settings = sources.scrubber.settings
    return settings.policy.scrub_time - timedelta(seconds=settings.horizon_seconds)


async def _keep_history(history: History, sources: Sources) -> None:
    while True:
        queue = sources.queue.statistics()
        history.step(sources.database_clock.now(), queue.ready + queue.taken)
        await anyio.sleep(STEP_SECONDS)


async def _keep_space(space: SpaceReader, routes: Routes) -> None:
    """Read the registry's count while somebody looks at it."""
    while True:
        if routes.space_wanted:
            routes.space_wanted = False
            await space.refresh()
        await anyio.sleep(1.0)
