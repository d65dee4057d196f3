# SPDX-License-Identifier: Apache-2.0
"""Jobs that are handed to a worker's thread together."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from evscrub.domain.evidence import Owner
from evscrub.domain.verdict import Verdict
from evscrub.scrubbing.job import Job, Location


@dataclass(frozen=True, slots=True)
class Answer:
    """What a store answered to a delete.

    :param verdict: None where the delete was not tried, or raised.
    :param began: when the delete began, seconds since boot.
    :param ended: when it ended, seconds since boot.
    :param ended_at: the same, seconds since the epoch, by the database's clock.
    :param defect: what was raised that no driver should raise.
    """

    job: Job
    location: Location
    verdict: Verdict | None
    began: float
    ended: float
    ended_at: float
    defect: Exception | None = None


class Batch:
    """Jobs that one worker goes through, a location of each.

    The thread takes them out one by one. The event loop reads :attr:`answers` when the thread has
    returned; before, it may take back those that were not begun, since either takes atomically.

    :param owner: holds the worker's slot.
    :param now: seconds since boot.
    """

    __slots__ = ("_jobs", "answers", "current", "heard_at", "owner", "stalled", "waits")

    def __init__(self, jobs: Iterable[Job], owner: Owner, now: float) -> None:
        self.owner = owner
        self.answers: list[Answer] = []
        self.current: Job | None = None  #: in the thread's hands
        self.stalled: Job | None = None  #: last found to take long
        self.heard_at = now  #: when it was begun, or the last answer came
        self.waits = False  #: for its turns at the rates
        self._jobs = deque(jobs)

    def __len__(self) -> int:
        """Return how many jobs were not begun."""
        return len(self._jobs)

    @property
    def jobs(self) -> list[Job]:
        """The jobs that were not begun."""
        return list(self._jobs)

    def take(self) -> Job | None:
        """Take out the next job; None without one."""
        try:
            self.current = self._jobs.popleft()
        except IndexError:
            self.current = None
        return self.current

    def take_back(self) -> list[Job]:
        """Take out all jobs that were not begun."""
        jobs = []
        while self._jobs:
            try:
                jobs.append(self._jobs.popleft())
            except IndexError:
                break
        return jobs

    def put(self, jobs: Iterable[Job]) -> None:
        """Put in jobs, before a thread has the batch."""
        self._jobs.extend(jobs)

    def answer(self, answer: Answer) -> None:
        """Add the answer for the current job."""
        self.answers.append(answer)
        self.heard_at = answer.ended
