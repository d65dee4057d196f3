# SPDX-License-Identifier: Apache-2.0
"""Keeps the leases of the jobs: says whether one is still ours, renews those that age."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio
from oslo_log import log as logging

from evscrub.registry.claims import Claims
from evscrub.registry.gateway import RegistryAwayError
from evscrub.scrubbing.context import Context
from evscrub.scrubbing.isolation import apart
from evscrub.scrubbing.job import Job, Lease

LOG = logging.getLogger(__name__)

#: A delete is begun, and a lease renewed, only while it is younger than this part of the time-out,
#: so that no other agent can have taken it over, whatever this process was kept from doing.
_AMPLE = 2 / 3
_RENEW = 1 / 3


@dataclass(frozen=True, slots=True)
class LeaseStatistics:
    """The jobs at one moment.

    :param claims: images claimed and not settled.
    :param in_work: those of them whose first delete has begun.
    :param in_work_seconds: how long those have been in work, taken together.
    :param longest_seconds: age of the longest-running of them; 0 without any.
    :param oldest_ready_at: when the first of all claimed images was due, at first or again,
        seconds since the epoch; None without any.
    """

    claims: int
    in_work: int
    in_work_seconds: float
    longest_seconds: float
    oldest_ready_at: float | None


class LeaseKeeper:
    """The jobs that are not settled yet, and their leases.

    Jobs are added by :meth:`add` when they are claimed and removed by :meth:`remove` when they are
    settled.
    """

    def __init__(self, claims: Claims, context: Context) -> None:
        self.timeout = context.lease_seconds
        #: Held while the registry is asked to compare leases with the jobs': one that is renewed
        #: meanwhile would be nobody's.
        self.compared = anyio.Lock()
        self._claims = claims
        self._context = context
        self._jobs: dict[str, Job] = {}

    @property
    def jobs(self) -> Collection[Job]:
        """All jobs that are not settled."""
        return self._jobs.values()

    def statistics(self, now: float) -> LeaseStatistics:
        """Return the jobs' number and age.

        :param now: by the database's clock, seconds since the epoch.
        """
        begun = [now - job.begun_at for job in self.jobs if job.begun_at is not None]
        return LeaseStatistics(
            claims=len(self.jobs),
            in_work=len(begun),
            in_work_seconds=sum(begun),
            longest_seconds=max(begun, default=0.0),
            oldest_ready_at=min((job.ready_at for job in self.jobs), default=None),
        )

    def add(self, job: Job) -> None:
        """Keep a job's lease."""
        self._jobs[job.image_id] = job

    def remove(self, job: Job) -> None:
        """Keep a job's lease no more."""
        self._jobs.pop(job.image_id, None)

    def is_ours(self, job: Job) -> bool:
        """Return whether a lease has ample time left; asked right before every delete."""
        if not job.lease.is_lost and not self.has_time(job):
            job.lease.is_lost = True
            self._context.record.leases_lost += 1
            LOG.warning("The claim of image %s ran out before its data was deleted", job.image_id)
        return not job.lease.is_lost

    def has_time(self, job: Job) -> bool:
        """Return whether a lease has ample time left and is not known to be lost; any thread."""
        age = self._context.clock.since(job.lease.asked)
        return not job.lease.is_lost and age <= self.timeout * _AMPLE

    async def run(self) -> None:
        """Renew leases until cancelled."""
        pause = self.timeout / 6
        while True:
            # A renewal that failed is soon tried again: leases age meanwhile.
            await anyio.sleep(min(pause, self._context.calls.away_seconds or pause))
            await self.renew()

    async def renew(self) -> None:
        """Renew the leases that have aged."""
        async with self.compared:
            await self._renew()

    async def _renew(self) -> None:
        aging = [
            job
            for job in self._jobs.values()
            if not job.lease.is_lost
            and self.timeout * _RENEW
            < self._context.clock.since(job.lease.asked)
            < self.timeout * _AMPLE
        ]
        if not aging:
            return
        with suppress(RegistryAwayError):
            await apart(aging, self._renew_all, self._refuse)

    def _refuse(self, job: Job, error: Exception) -> None:
        """Drop a claim whose rows take no new lease."""
        LOG.warning(
            "The claim of image %s cannot be renewed (%s)", job.image_id, type(error).__name__
        )
        job.lease.is_lost = True
        self._context.record.leases_lost += 1

    async def _renew_all(self, aging: Sequence[Job]) -> None:
        asked = self._context.clock.moment()
        held = [(job.claim, job.lease.stamp) for job in aging]
        kept, stamp = await self._context.calls.call(
            self._claims.renew, held, patience_seconds=self._context.calls.silent_seconds
        )
        ours = {claim.image.id for claim in kept}
        for job in aging:
            if job.image_id in ours:
                job.lease = Lease(stamp, asked, job.lease.is_lost)
            else:
                job.lease.is_lost = True
                self._context.record.leases_lost += 1
