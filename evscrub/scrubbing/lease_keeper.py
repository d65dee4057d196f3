# SPDX-License-Identifier: Apache-2.0
"""Tracks the leases of jobs: checks them before deletes and renews them as they age."""

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

#: A delete is started, and a lease renewed, only while the lease is younger than this share of the
#: timeout: however long this process was stopped, no other agent can have taken it over by then.
_AMPLE = 2 / 3
_RENEW = 1 / 3


@dataclass(frozen=True, slots=True)
class LeaseStatistics:
    """The jobs at one moment.

    :param claims: images claimed and not settled.
    :param in_work: those of them whose first delete has started.
    :param in_work_seconds: sum of the times since their first deletes started.
    :param longest_seconds: the longest of these times; 0 without any.
    :param oldest_ready_at: earliest time at which a claimed image was due or ready for its retry,
        seconds since the epoch; None without any.
    """

    claims: int
    in_work: int
    in_work_seconds: float
    longest_seconds: float
    oldest_ready_at: float | None


class LeaseKeeper:
    """The unsettled jobs and their leases.

    The claimer adds jobs by :meth:`add`; the settler removes them by :meth:`remove`.
    """

    def __init__(self, claims: Claims, context: Context) -> None:
        self.timeout = context.lease_seconds
        #: Held while renewals and settlements compare leases with the registry's: a lease renewed
        #: during a settlement would not match.
        self.compared = anyio.Lock()
        self._claims = claims
        self._context = context
        self._jobs: dict[str, Job] = {}

    @property
    def jobs(self) -> Collection[Job]:
        """All unsettled jobs."""
        return self._jobs.values()

    def statistics(self, now: float) -> LeaseStatistics:
        """Return the jobs' number and age.

        :param now: time by the database's clock, seconds since the epoch.
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
        """Start to renew a job's lease."""
        self._jobs[job.image_id] = job

    def remove(self, job: Job) -> None:
        """Stop renewing a job's lease."""
        self._jobs.pop(job.image_id, None)

    def is_ours(self, job: Job) -> bool:
        """Return whether a lease has ample time left; if not, mark it as lost and log that once."""
        if not job.lease.is_lost and not self.has_time(job):
            job.lease.is_lost = True
            self._context.record.leases_lost += 1
            LOG.warning("The claim of image %s expired before its data was deleted", job.image_id)
        return not job.lease.is_lost

    def has_time(self, job: Job) -> bool:
        """Return whether a lease has ample time left and is not known to be lost. Thread-safe."""
        age = self._context.clock.since(job.lease.asked)
        return not job.lease.is_lost and age <= self.timeout * _AMPLE

    async def run(self) -> None:
        """Renew leases until cancelled."""
        pause = self.timeout / 6
        while True:
            # A failed renewal is retried soon, because leases keep aging.
            await anyio.sleep(min(pause, self._context.calls.away_seconds or pause))
            await self.renew()

    async def renew(self) -> None:
        """Renew the aging leases, and mark those that were taken over as lost."""
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
        """Mark a lease as lost whose rows the database refuses to update."""
        LOG.warning("Cannot renew the claim of image %s (%s)", job.image_id, type(error).__name__)
        job.lease.is_lost = True
        self._context.record.leases_lost += 1

    async def _renew_all(self, aging: Sequence[Job]) -> None:
        asked = self._context.clock.moment()
        held = [(job.claim, job.lease.stamp) for job in aging]
        renewal = await self._context.calls.call(
            self._claims.renew, held, patience_seconds=self._context.calls.silent_seconds
        )
        kept, locked = set(renewal.kept), set(renewal.locked)
        for job in aging:
            if job.image_id in kept:
                job.lease = Lease(renewal.lease, asked, job.lease.is_lost)
            elif job.image_id not in locked:
                job.lease.is_lost = True
                self._context.record.leases_lost += 1
