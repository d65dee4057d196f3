# SPDX-License-Identifier: Apache-2.0
"""Jobs that a worker thread processes in one go."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from evscrub.domain.evidence import Owner
from evscrub.domain.verdict import Verdict
from evscrub.scrubbing.job import Job, JobState, Location

#: A delete that takes longer may hang, and never end.
OVERDUE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Result of one delete.

    :param verdict: None if the delete was not attempted, or raised.
    :param began: start of the delete, seconds since boot.
    :param ended: end of the delete, seconds since boot.
    :param ended_at: end of the delete by the database's clock, seconds since the epoch.
    :param defect: unexpected exception, one that ``Stores.delete`` did not turn into a verdict.
    """

    job: Job
    location: Location
    verdict: Verdict | None
    began: float
    ended: float
    ended_at: float
    defect: BaseException | None = None


class Batch:
    """Jobs of one worker, which deletes one location of each.

    The thread pops jobs one at a time, while the event loop may take back jobs that have not
    started: both pop from a deque, which is atomic. The event loop reads :attr:`answers` after the
    thread has returned.

    :param owner: owner to whom the worker's slot is charged.
    :param now: seconds since boot.
    """

    __slots__ = ("_jobs", "answers", "current", "heard_at", "owner", "stalled", "waits")

    def __init__(self, jobs: Iterable[Job], owner: Owner, now: float) -> None:
        self.owner = owner
        self.answers: list[Answer] = []
        self.current: Job | None = None  #: the job that the thread is deleting
        self.stalled: Job | None = None  #: the job that was last found to take long
        self.heard_at = now  #: creation, first delete or latest answer, seconds since boot
        self.waits = False  #: whether it waits for the rate limits
        self._jobs = deque(jobs)

    def __len__(self) -> int:
        """Return the number of jobs that have not started."""
        return len(self._jobs)

    def is_overdue(self, now: float) -> bool:
        """Return whether its delete, or what follows it, has taken so long that it may hang.

        :param now: seconds since boot.
        """
        has_begun = self.current is not None or bool(self.answers)
        return has_begun and now - self.heard_at >= OVERDUE_SECONDS

    @property
    def jobs(self) -> list[Job]:
        """The jobs that have not started."""
        return list(self._jobs)

    @property
    def unjudged(self) -> list[Job]:
        """All jobs but those whose answer was judged."""
        return self.started + self.jobs

    @property
    def started(self) -> list[Job]:
        """The jobs whose delete began, but those whose answer was judged."""
        judged_or_not = [answer.job for answer in self.answers]
        current = self.current  # the thread may change it meanwhile
        if current is not None and current not in judged_or_not:
            judged_or_not.append(current)
        return [job for job in judged_or_not if job.state is JobState.DELETING]

    def take(self) -> Job | None:
        """Remove and return the next job; None if there is none."""
        try:
            self.current = self._jobs.popleft()
        except IndexError:
            self.current = None
        return self.current

    def take_back(self) -> list[Job]:
        """Remove and return all jobs that have not started."""
        jobs = []
        while self._jobs:
            try:
                jobs.append(self._jobs.popleft())
            except IndexError:
                break
        return jobs

    def put(self, jobs: Iterable[Job]) -> None:
        """Append jobs; call this before a thread gets the batch."""
        self._jobs.extend(jobs)

    def answer(self, answer: Answer) -> None:
        """Record the answer for the current job."""
        self.answers.append(answer)
        self.heard_at = answer.ended
