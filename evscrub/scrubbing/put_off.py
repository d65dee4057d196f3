# SPDX-License-Identifier: Apache-2.0
"""Keep jobs that cannot be settled yet, because another transaction has locked their rows. Pure."""

import math
import operator
from collections.abc import Collection

from evscrub.domain.words import count, in_words
from evscrub.scrubbing.job import Job

#: Pause between two tries.
RETRY_SECONDS = 1.0
#: Claims of other agents lock rows for less than this.
_SHORT_SECONDS = 3.0
#: Locks that last are logged after this time, and at this interval.
_LONG_SECONDS = 30.0
_LOG_SECONDS = 60.0


class PutOff:
    """Ended jobs whose rows another transaction has locked. All times are seconds on one clock."""

    def __init__(self) -> None:
        #: When to try them again; infinite without any.
        self.due_at = math.inf
        self._first_tries: dict[Job, float] = {}
        self._logged_at = -math.inf

    def __len__(self) -> int:
        """Return the number of jobs."""
        return len(self._first_tries)

    def __contains__(self, job: object) -> bool:
        """Return whether a job is put off."""
        return job in self._first_tries

    def stuck(self, now: float) -> int:
        """Return the number of jobs whose rows are locked for longer than a claim locks them."""
        return sum(now - at >= _SHORT_SECONDS for at in self._first_tries.values())

    def due(self, now: float) -> list[Job]:
        """Return the jobs if it is time to try them again; they stay until :meth:`sort`."""
        return list(self._first_tries) if now >= self.due_at else []

    def sort(self, tried: Collection[Job], locked: Collection[str], now: float) -> None:
        """Keep those of the tried jobs whose images are locked, and remove the others."""
        first_tries = {job: self._first_tries.pop(job, now) for job in tried}
        self._first_tries |= {job: at for job, at in first_tries.items() if job.image_id in locked}
        if not self._first_tries:
            self.due_at = math.inf
        elif not now < self.due_at < math.inf:
            self.due_at = now + RETRY_SECONDS

    def warning(self, now: float) -> str:
        """Return what to log; empty if there is nothing, or not yet."""
        if not self._first_tries:
            return ""
        job, since = min(self._first_tries.items(), key=operator.itemgetter(1))
        if now - since < _LONG_SECONDS or now - self._logged_at < _LOG_SECONDS:
            return ""
        self._logged_at = now
        return (
            f"{count(len(self), 'image')} cannot be settled, since another transaction has locked"
            f" their rows, for {in_words(now - since)} now; one of them is {job.image_id}. End that"
            " transaction if its client is frozen or gone"
        )
