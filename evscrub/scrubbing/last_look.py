# SPDX-License-Identifier: Apache-2.0
"""Checks right before a delete whether other locations share the data.

The claim checks it too, but a claimed image may wait: for a rate limit, a worker, or another of its
locations in a store that hangs. Meanwhile a live image may get the same URL.
"""

from collections.abc import Callable, Collection, Sequence

import anyio
from oslo_log import log as logging

from evscrub.domain.decisions import LocationRow
from evscrub.domain.verdict import Outcome, Verdict
from evscrub.registry.gateway import RegistryAwayError
from evscrub.scrubbing.context import Context
from evscrub.scrubbing.job import Job

LOG = logging.getLogger(__name__)

#: Maximum age of the answer when a delete starts.
LOOK_SECONDS = 2.0
#: Age of an answer at which a worker asks again first. It must not become too old on the way to the
#: thread: a job that comes there late has used up its turn at the rate limits.
_RENEW_SECONDS = LOOK_SECONDS / 2
#: Attempts: an answer that takes longer than that is too old. One may have to read all rows.
_TRIES = 3

NO_LAST_LOOK = Verdict(Outcome.TRANSIENT, "no_last_look", "the registry answers too late or not")


class LastLook:
    """Looks for shared data right before deletes.

    :param among: returns verdicts of those rows that may share their data, by row id; blocks.
    """

    def __init__(
        self, among: Callable[[Collection[LocationRow]], dict[int, Verdict]], context: Context
    ) -> None:
        self._among = among
        self._context = context
        self._asking = anyio.Lock()
        self._waiting: list[Job] = []

    def is_due(self, jobs: Sequence[Job]) -> bool:
        """Return whether :meth:`renew` would ask the registry."""
        return any(self._age(job) > _RENEW_SECONDS for job in jobs)

    def is_fresh(self, job: Job) -> bool:
        """Return whether the last look is recent enough to delete now. Thread-safe."""
        return self._age(job) <= LOOK_SECONDS

    def _age(self, job: Job) -> float:
        return self._context.clock.since(job.looked)

    async def renew(self, jobs: Sequence[Job]) -> None:
        """Look again for the jobs whose last look is not fresh, or will soon not be.

        Stores the answers in the jobs; a job whose answer does not come in time stays stale.
        """
        for attempt in range(_TRIES):
            most = LOOK_SECONDS if attempt else _RENEW_SECONDS
            old = [job for job in jobs if self._age(job) > most]
            if not old:
                break
            try:
                await self._look(old)
            except RegistryAwayError:
                break
            except Exception:
                names = " ".join(job.image_id for job in old)
                LOG.exception("The last look for shared data failed; not deleted: %s", names)
                break

    async def _look(self, jobs: Sequence[Job]) -> None:
        """Look, together with all others that wait for a look under way to end."""
        self._waiting += jobs
        async with self._asking:
            if any(job in jobs for job in self._waiting):
                waiting, self._waiting = self._waiting, []
                await self._look_at(waiting)

    async def _look_at(self, jobs: list[Job]) -> None:
        rows = [location.row for job in jobs for location, _ in job.pending]
        asked = self._context.clock.moment()
        shared = await self._context.calls.call(self._among, rows)
        for job in jobs:
            # The answer stays with its job, whichever worker has that when it comes, and comes
            # before its time: the worker's thread reads the time first.
            job.needed_elsewhere = {
                location.row.id: shared[location.row.id]
                for location, _ in job.pending
                if location.row.id in shared
            }
            job.looked = asked
