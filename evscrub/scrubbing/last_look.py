# SPDX-License-Identifier: Apache-2.0
"""Ask again whether other locations want the data, when the answer of the claim has grown old.

A claimed image may wait: for its turn at a rate, for a worker, for another of its locations to be
deleted in a store that hangs. Meanwhile a live image may get the URL.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import anyio
from oslo_log import log as logging

from evscrub.domain.decisions import LocationRow
from evscrub.domain.verdict import Outcome, Verdict
from evscrub.registry.gateway import RegistryAwayError
from evscrub.scrubbing.context import Context
from evscrub.scrubbing.job import Job

LOG = logging.getLogger(__name__)

#: A delete begins at most so long after it was asked who else wants the data.
LOOK_SECONDS = 2.0
#: A look that takes longer than that is of no use. The first of an hour reads all locations.
_TRIES = 3

NO_LAST_LOOK = Verdict(Outcome.TRANSIENT, "no_last_look", "the registry answers too late or not")


class LastLook:
    """Looks for shared data right before deletes.

    :param among: returns what holds of those rows whose data another location may want; blocks.
    """

    def __init__(
        self, among: Callable[[Collection[LocationRow]], dict[int, Verdict]], context: Context
    ) -> None:
        self._among = among
        self._context = context
        self._asking = anyio.Lock()
        self._waiting: list[Job] = []

    def is_fresh(self, job: Job) -> bool:
        """Return whether the last look is young enough to delete now; for any thread."""
        return self._context.clock.since(job.looked) <= LOOK_SECONDS

    async def renew(self, jobs: Sequence[Job]) -> dict[str, Mapping[int, Verdict]]:
        """Look again at the jobs whose last look is too old.

        :returns: what holds of the jobs' rows whose data may be needed elsewhere, by image id and
            row id, of those jobs for which there is a fresh answer.
        """
        for _ in range(_TRIES):
            old = [job for job in jobs if not self.is_fresh(job)]
            if not old:
                break
            try:
                await self._look(old)
            except RegistryAwayError:
                break
            except Exception:
                names = " ".join(job.image_id for job in old)
                LOG.exception("No last look tells who needs their data; not deleted: %s", names)
                break
        return {job.image_id: job.needed_elsewhere for job in jobs if self.is_fresh(job)}

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
            # The answer stays with its job, whichever worker has that when it comes.
            job.looked = asked
            job.needed_elsewhere = {
                location.row.id: shared[location.row.id]
                for location, _ in job.pending
                if location.row.id in shared
            }
