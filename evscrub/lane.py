# SPDX-License-Identifier: Apache-2.0
"""A lane: what one store may be asked for at a time.

Pure: it counts and decides, it never waits.
"""

from collections import deque
from enum import Enum
from math import ceil

from evscrub.breaker import Breaker, State
from evscrub.pace import Pace
from evscrub.rules import Kind
from evscrub.verdict import EMPTY_DIRECTORY, GONE, MISSING_DIRECTORY, NOT_FOUND, Outcome, Verdict
from evscrub.work import Work

#: How much work is claimed ahead of the workers, so that they do not wait for the database.
_AHEAD_SECONDS = 0.25
#: Claims under way at a time: while one waits for the database, the other computes.
_CLAIMS = 2
_LEAST_YIELD = 0.01
#: A worker goes on with further images for so long before it says what came of them: its way to a
#: thread and back costs more than a fast delete.
RUN_SECONDS = 0.25
#: Deletes that take less are fast. Workers that do them hold each other up, for one alone runs in
#: Python, so there is another only for so much more to do.
_FAST_SECONDS = 0.005
_WORTH_SECONDS = 0.05
#: After so long without an answer from any of them, there is need of another worker.
STALL_SECONDS = 0.1
#: What a delete that is slower than those before weighs in what they are taken to need.
_WEIGHT = 0.05
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
        self.delete_seconds = 0.0  #: how long a delete takes, lately; 0 before the first
        self._heard_at = float("-inf")  #: of a worker's beginning, or of a delete's end
        self.waiting = 0  #: of those that run, how many wait for a turn at the rates
        self.claims = 0  #: under way
        self.claiming = 0  #: images that they ask for
        #: Which part of what was asked for lately was there to claim; little where other agents
        #: go through the same images.
        self.yielded = 1.0
        self.backlog: deque[Work] = deque()
        #: Work whose data was not there, until something tells whether the store can be believed.
        self.suspects: deque[Work] = deque()

    def claim_size(self, now: float, batch_size: int, rate: float) -> int:
        """How many images to claim now; 0 while there is enough claimed to go on with.

        :param now: seconds, for the breaker.
        :param batch_size: the most in one transaction.
        :param rate: deletes a second that all stores together are allowed, 0 for no limit.
        """
        ahead = len(self.backlog) + self.claiming
        probes = self.breaker.lets_through(now, ahead + self.running)
        if probes is not None:
            return probes
        if self.claims == _CLAIMS:
            return 0
        free = max(0, self.pace.concurrent - ahead - self.running)
        wanted = max(free, min(2 * batch_size, int(self.pace.per_second * _AHEAD_SECONDS)))
        rates = [limit for limit in (rate, self.pace.rate) if limit]
        if rates:
            # What only waits for its turn is better left to other agents, and to other owners.
            turns = max(1, int(min(rates) * _AHEAD_SECONDS))
            wanted = min(wanted, turns - ahead - self.waiting)
        wanted -= ahead
        if wanted <= ahead:
            return 0
        return min(batch_size, wanted if rates else ceil(wanted / self.yielded))

    def claim_begins(self, asked: int) -> None:
        """So many images are being claimed."""
        self.claims += 1
        self.claiming += asked

    def claim_ends(self, asked: int, got: int) -> None:
        """A claim of so many images got so many."""
        self.claims -= 1
        self.claiming -= asked
        self.yielded = max(_LEAST_YIELD, (self.yielded + got / asked) / 2)

    def may_begin(self, now: float) -> bool:
        """Whether there is a claimed image that another worker may begin."""
        return (
            bool(self.backlog)
            and self.running < self.pace.concurrent
            and self.breaker.lets_through(now, self.running) != 0
            and self._needs_worker(now)
        )

    def _needs_worker(self, now: float) -> bool:
        """Whether another worker does more than those that take what is in the backlog anyway."""
        busy = self.running - self.waiting
        return (
            not busy
            or self.delete_seconds >= _FAST_SECONDS
            or len(self.backlog) * self.delete_seconds > busy * _WORTH_SECONDS
            or now - self._heard_at >= STALL_SECONDS
        )

    def begin(self, now: float) -> Work | None:
        """Take the next claimed image for another worker."""
        work = self.next_of_run()
        if work is not None:
            self.running += 1
            self._heard_at = now
        return work

    def next_of_run(self) -> Work | None:
        """Take the next claimed image for a worker that is there; None without any, any thread."""
        try:
            return self.backlog.popleft()
        except IndexError:
            return None

    @property
    def turns_worth_taking(self) -> int:
        """How many further turns at the rates one worker has a use for: where deletes are fast."""
        if not 0 < self.delete_seconds < _FAST_SECONDS:
            return 0
        return min(len(self.backlog), int(_WORTH_SECONDS / self.delete_seconds))

    @property
    def has_runs(self) -> bool:
        """Whether a worker may go on with further images at once; for any thread."""
        return self.breaker.state is State.CLOSED

    def took(self, seconds: float, now: float) -> None:
        """Take in how long a delete took; any thread: nothing depends on each one counting.

        The fastest count most. Those that are slow now and then are so because of other threads, or
        because of their images.
        """
        seconds = max(seconds, 1e-6)
        if seconds > self.delete_seconds > 0:
            seconds = self.delete_seconds + (seconds - self.delete_seconds) * _WEIGHT
        self.delete_seconds = seconds
        self._heard_at = now

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

    def is_outdated(self, verdict: Verdict, tried_at: float) -> bool:
        """Whether an answer tells that data was not there before an operator saw to the store.

        :param tried_at: when it was asked for, in the breaker's seconds.
        """
        missing = verdict in _NOT_MOUNTED or (verdict.outcome is Outcome.GONE and verdict != GONE)
        return missing and tried_at < self.breaker.reset_at

    def answered(self, verdict: Verdict, kind: Kind, now: float) -> Change | None:
        """Take in what the store answered to a delete; returns what that changes about the lane."""
        match verdict.outcome:
            case Outcome.TRANSIENT | Outcome.UNKNOWN:
                # A failed probe tells that the store is still down, not how much it would bear.
                overloaded = verdict.tells_overload and self.breaker.state is State.CLOSED
                was_slowed = self.pace.is_slowed
                slowed = overloaded and self.pace.troubled(now) and not was_slowed
                if self.breaker.failed(now, verdict.why):
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
