# SPDX-License-Identifier: Apache-2.0
"""Ask again whether other locations want the data, when the answer of the claim has grown old.

A claimed image may wait: for its turn at a rate, for a worker, for another of its locations to be
deleted in a store that hangs. Meanwhile a live image may get the URL.
"""

from collections.abc import Callable, Collection

import anyio
from oslo_log import log as logging

from evscrub.domain.clock import Clock
from evscrub.domain.decisions import LocationRow
from evscrub.domain.verdict import Outcome, Verdict
from evscrub.registry.gateway import RegistryAwayError, RegistryGateway
from evscrub.scrubbing.job import Work

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
        self,
        among: Callable[[Collection[LocationRow]], dict[int, Verdict]],
        calls: RegistryGateway,
        clock: Clock,
    ) -> None:
        self._among = among
        self._calls = calls
        self._clock = clock
        self._asking = anyio.Lock()
        self._waiting: list[Work] = []
        #: What was found for works that were asked about, by image.
        self._shared: dict[str, dict[int, Verdict]] = {}

    def is_fresh(self, work: Work) -> bool:
        """Return whether the last look is young enough to delete now; for any thread."""
        return self._clock.since(work.looked) <= LOOK_SECONDS

    async def renew(self, work: Work) -> dict[int, Verdict] | None:
        """Look again unless the last look is fresh.

        :returns: what holds of the work's rows whose data may be wanted elsewhere, by row id; None
            where no fresh answer could be had.
        """
        shared: dict[int, Verdict] = {}
        for _ in range(_TRIES):
            if self.is_fresh(work):
                return shared
            try:
                shared = await self._look(work)
            except RegistryAwayError:
                return None
            except Exception:
                LOG.exception(
                    "Image %s is not deleted: no last look at what shares it", work.image_id
                )
                return None
        return shared if self.is_fresh(work) else None

    async def _look(self, work: Work) -> dict[int, Verdict]:
        """Look, together with all others that wait for a look under way to end."""
        self._waiting.append(work)
        async with self._asking:
            if any(work is waiting for waiting in self._waiting):
                works, self._waiting = self._waiting, []
                await self._look_at(works)
        return self._shared.pop(work.image_id, {})

    async def _look_at(self, works: list[Work]) -> None:
        rows = [row for work in works for row, _ in work.targets]
        asked = self._clock.moment()
        shared = await self._calls.call(self._among, rows)
        for work in works:
            work.looked = asked
            ids = [row.id for row, _ in work.targets]
            self._shared[work.image_id] = {row: shared[row] for row in ids if row in shared}
