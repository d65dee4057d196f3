# SPDX-License-Identifier: Apache-2.0
"""A lane: what one store may be asked for at a time.

Pure: it counts and decides, it never waits.
"""

from collections import deque
from enum import Enum

from evscrub.breaker import Breaker, State
from evscrub.pace import Pace
from evscrub.rules import Kind
from evscrub.verdict import EMPTY_DIRECTORY, GONE, MISSING_DIRECTORY, NOT_FOUND, Outcome, Verdict
from evscrub.work import Work

#: How much work is claimed ahead of the workers, so that they do not wait for the database.
_AHEAD_SECONDS = 0.25
#: A worker does so much of fast deletes at a time that its way to a thread and back, some 200 us
#: of computing, is little beside them.
RUN_SECONDS = 0.005
#: What the last delete weighs in the mean of how long they take.
_WEIGHT = 0.2
_NOT_MOUNTED = {
    MISSING_DIRECTORY: "its directory is missing",
    EMPTY_DIRECTORY: "its directory is empty",
}


class Change(Enum):
    """What an answer changed about a lane."""

    SLOWED = "slowed"
    RECOVERED = "recovered"
    OPENED = "opened"
    CLOSED = "closed"
    BLOWN = "blown"


class Lane:
    """Backlog, pace and breaker of one store.

    :param name: the store; empty for images that no usable store has a location of.
    """

    def __init__(self, name: str, pace: Pace, breaker: Breaker) -> None:
        self.name = name
        self.pace = pace
        self.breaker = breaker
        self.running = 0  #: workers, each with one image, or with several whose deletes are fast
        self.delete_seconds = 1.0  #: how long a delete takes, lately
        self.waiting = 0  #: of those that run, how many wait for a turn at the rates
        self.claiming = False
        self.backlog: deque[Work] = deque()
        #: Work whose data was not there, until something tells whether the store can be believed.
        self.suspects: deque[Work] = deque()

    def claim_size(self, now: float, batch_size: int, rate: float) -> int:
        """How many images to claim now; 0 while there is enough claimed to go on with.

        :param now: seconds, for the breaker.
        :param batch_size: the most in one transaction.
        :param rate: deletes a second that all stores together are allowed, 0 for no limit.
        """
        claimed = len(self.backlog) + self.running
        probes = self.breaker.lets_through(now, claimed)
        if probes is not None:
            return probes
        free = max(0, self.pace.concurrent - claimed)
        ahead = max(free, min(batch_size, int(self.pace.per_second * _AHEAD_SECONDS)))
        rates = [limit for limit in (rate, self.pace.rate) if limit]
        if rates:
            # What only waits for its turn is better left to other agents, and to other owners.
            turns = max(1, int(min(rates) * _AHEAD_SECONDS))
            ahead = min(ahead, turns - len(self.backlog) - self.waiting)
        wanted = min(batch_size, ahead) - len(self.backlog)
        return wanted if wanted > len(self.backlog) else 0

    def may_begin(self, now: float) -> bool:
        """Whether the next claimed image may begin."""
        return (
            bool(self.backlog)
            and self.running < self.pace.concurrent
            and self.breaker.lets_through(now, self.running) != 0
        )

    def take_run(self, *, limited: bool) -> deque[Work]:
        """Take claimed images for one worker, as many as it deletes in no time.

        :param limited: whether there is a rate over all stores; then each needs a turn of its own.
        """
        count = 1
        if not (limited or self.pace.rate) and self.breaker.state is State.CLOSED:
            count = min(max(1, int(RUN_SECONDS / self.delete_seconds)), len(self.backlog))
        return deque(self.backlog.popleft() for _ in range(count))

    def took(self, seconds: float) -> None:
        """Take in how long a delete took. For any thread: nothing depends on each one counting."""
        self.delete_seconds += (max(seconds, 1e-6) - self.delete_seconds) * _WEIGHT

    def is_shut(self, now: float) -> bool:
        """Whether nothing may begin here, so that there is no use in holding claims for it."""
        return self.breaker.lets_through(now, 0) == 0

    def is_shut_for_others(self, now: float) -> bool:
        """Whether an image that is in work here may not go on; only a probe may."""
        return self.breaker.lets_through(now, self.running - 1) == 0

    def believed(self, verdict: Verdict) -> Verdict:
        """What an answer means where an operator may have said that the data is really gone."""
        if verdict in _NOT_MOUNTED and not self.breaker.not_found_limit:
            return NOT_FOUND
        return verdict

    def answered(self, verdict: Verdict, kind: Kind, now: float) -> Change | None:
        """Take in what the store answered to a delete; returns what that changes about the lane."""
        match verdict.outcome:
            case Outcome.TRANSIENT | Outcome.UNKNOWN:
                # A failed probe tells that the store is still down, not how much it would bear.
                overloaded = (
                    verdict.outcome is Outcome.TRANSIENT and self.breaker.state is State.CLOSED
                )
                was_slowed = self.pace.is_slowed
                slowed = overloaded and self.pace.troubled(now) and not was_slowed
                if self.breaker.failed(now, verdict.reason):
                    return Change.OPENED
                return Change.SLOWED if slowed else None
            case Outcome.STORE_TROUBLE if verdict in _NOT_MOUNTED:
                return Change.BLOWN if self.breaker.blow(_NOT_MOUNTED[verdict]) else None
            case Outcome.STORE_TROUBLE:
                opened = self.breaker.failed(now, verdict.reason, at_once=True)
                return Change.OPENED if opened else None
            case Outcome.CONFIGURATION:
                return None
        was_slowed = self.pace.is_slowed
        self.pace.answered(now)
        if verdict == GONE:
            self.breaker.deleted()
        # A claim that was taken over is often of data that its first owner deleted.
        elif (
            verdict.outcome is Outcome.GONE and kind is not Kind.STALE and self.breaker.not_found()
        ):
            return Change.BLOWN
        if self.breaker.answered():
            return Change.CLOSED
        return Change.RECOVERED if was_slowed and not self.pace.is_slowed else None
