# SPDX-License-Identifier: Apache-2.0
"""Keeps the leases of the images in work: says whether one is still ours, renews those that age."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio
from oslo_log import log as logging

from evscrub.domain.clock import Clock
from evscrub.registry.calls import RegistryAwayError, RegistryCalls
from evscrub.registry.claims import Claims
from evscrub.scrubbing.isolation import apart
from evscrub.scrubbing.job import Work
from evscrub.telemetry.statistics import Record

LOG = logging.getLogger(__name__)

#: A delete is begun, and a lease renewed, only while it is younger than this part of the time-out,
#: so that no other agent can have taken it over, whatever this process was kept from doing.
_AMPLE = 2 / 3
_RENEW = 1 / 3


@dataclass(frozen=True, slots=True)
class LeaseStatistics:
    """The claimed images at one moment.

    :param claims: images claimed and not settled.
    :param in_work: those of them whose first delete has begun.
    :param in_work_seconds: how long those have been in work, taken together.
    :param longest_seconds: how long the one has been in work that began first; 0 without any.
    :param oldest_ready_at: when the first of all claimed images was due, at first or again,
        seconds since the epoch; None without any.
    """

    claims: int
    in_work: int
    in_work_seconds: float
    longest_seconds: float
    oldest_ready_at: float | None


class Leases:
    """The leases of all works that are not settled yet.

    :param timeout: how old a lease may get, seconds.
    """

    def __init__(
        self, claims: Claims, calls: RegistryCalls, clock: Clock, record: Record, timeout: float
    ) -> None:
        self.timeout = timeout
        self.works: dict[str, Work] = {}
        #: Held while the registry is asked to compare leases with the works': one that is renewed
        #: meanwhile would be nobody's.
        self.compared = anyio.Lock()
        self._claims = claims
        self._calls = calls
        self._clock = clock
        self._record = record

    def statistics(self, now: float) -> LeaseStatistics:
        """Return the claimed images' number and age.

        :param now: by the database's clock, seconds since the epoch.
        """
        works = self.works.values()
        begun = [now - work.begun_at for work in works if work.begun_at is not None]
        return LeaseStatistics(
            claims=len(works),
            in_work=len(begun),
            in_work_seconds=sum(begun),
            longest_seconds=max(begun, default=0.0),
            oldest_ready_at=min((work.ready_at for work in works), default=None),
        )

    def is_ours(self, work: Work) -> bool:
        """Whether a lease has ample time left; asked right before every delete."""
        if not work.lost and not self.has_time(work):
            work.lost = True
            self._record.leases_lost += 1
            LOG.warning("The claim of image %s ran out before its data was deleted", work.image_id)
        return not work.lost

    def has_time(self, work: Work) -> bool:
        """Whether a lease has ample time left and is not known to be lost; for any thread."""
        return not work.lost and self._clock.since(work.asked) <= self.timeout * _AMPLE

    async def run(self) -> None:
        """Renew leases for ever."""
        pause = self.timeout / 6
        while True:
            # A renewal that failed is soon tried again: leases age meanwhile.
            await anyio.sleep(min(pause, self._calls.away_seconds or pause))
            await self.renew()

    async def renew(self) -> None:
        """Renew the leases that have aged."""
        async with self.compared:
            await self._renew()

    async def _renew(self) -> None:
        aging = [
            work
            for work in self.works.values()
            if not work.lost
            and self.timeout * _RENEW < self._clock.since(work.asked) < self.timeout * _AMPLE
        ]
        if not aging:
            return
        with suppress(RegistryAwayError):
            await apart(aging, self._renew_all, self._refuse)

    def _refuse(self, work: Work, error: Exception) -> None:
        """Drop a claim whose rows take no new lease."""
        LOG.warning(
            "The claim of image %s cannot be renewed (%s)", work.image_id, type(error).__name__
        )
        work.lost = True
        self._record.leases_lost += 1

    async def _renew_all(self, aging: Sequence[Work]) -> None:
        asked = self._clock.moment()
        held = [(work.claim, work.lease) for work in aging]
        kept, lease = await self._calls.call(
            self._claims.renew, held, patience_seconds=self._calls.silent_seconds
        )
        ours = {claim.image.id for claim in kept}
        for work in aging:
            if work.image_id in ours:
                work.lease, work.asked = lease, asked
            else:
                work.lost = True
                self._record.leases_lost += 1
