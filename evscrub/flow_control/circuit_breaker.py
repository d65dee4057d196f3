# SPDX-License-Identifier: Apache-2.0
"""Whether a store, or one owner's images in it, may be asked at all: a circuit breaker.

Pure. The breaker opens after some failures in a row and lets one request through now and then until
the store answers. A store that answers but refuses one image after another is not down: it is asked
for one image at a time, without a pause, until it deletes one.
"""

from collections.abc import Callable
from enum import Enum

from evscrub.domain.evidence import Owner, Tally

#: Failures in a row that open the breaker of a store; one owner's count for three at most, so that
#: it takes two of them.
FAILURES = 5
_FAILURES_OF_OWNER = 3
#: Refusals in a row after which images go one at a time; one owner's count for ten at most.
REFUSALS = 20
_REFUSALS_OF_OWNER = 10
#: Pauses grow slowly, so that images that fail by themselves delay the first good one behind them
#: by little: fourteen of them by 13 s. A store that is down gets some 20 requests in the first
#: minute and one a minute later.
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 60.0
_PAUSE_GROWTH = 1.3
_MOST_PAUSES = 30


class State(Enum):
    """What a breaker lets through; the values are those in metrics and on the status page."""

    CLOSED = "closed"  #: everything
    OPEN = "open"  #: nothing, until a time
    HALF_OPEN = "probing"  #: one request at a time
    FORCED_OPEN = "blown"  #: nothing, until an operator says so


class Breaker:
    """A circuit breaker.

    ::

                  failures in a row                its pause is over
        CLOSED ──────────────────────> OPEN ─────────────────────────> HALF_OPEN
          ^  │                           ^            the probe fails     │   ^
          │  │                           └────────────────────────────────┤   │
          │  └── refusals in a row ───────────────────────────────────────┼───┘
          └──────────────────────── the probe does well ──────────────────┘

        any ── force_open() ──> FORCED_OPEN ── reset() ──> CLOSED

    A question changes nothing: that a pause is over follows from the time that is passed in.

    :param uniform: draws a number between two, for jitter.
    :param of_one_owner: whether it is for one owner's images, and not for a whole store.
    """

    __slots__ = ("_failures", "_pauses", "_refusals", "_uniform", "opened_until", "reason", "state")

    def __init__(
        self, uniform: Callable[[float, float], float], *, of_one_owner: bool = False
    ) -> None:
        self.state = State.CLOSED
        self.reason = ""
        self.opened_until = 0.0
        self._uniform = uniform
        self._failures = Tally(FAILURES, FAILURES if of_one_owner else _FAILURES_OF_OWNER)
        self._refusals = Tally(REFUSALS, REFUSALS if of_one_owner else _REFUSALS_OF_OWNER)
        self._pauses = 0

    def lets_through(self, now: float, running: int) -> int | None:
        """Return how many requests may begin now; None for any number.

        :param running: requests under way.
        """
        if self.state is State.CLOSED:
            return None
        return 1 if self.state_at(now) is State.HALF_OPEN and not running else 0

    def state_at(self, now: float) -> State:
        """Return its state at a time, seconds."""
        over = self.state is State.OPEN and now >= self.opened_until
        return State.HALF_OPEN if over else self.state

    def answered(self) -> bool:
        """Take in that the store did what it was asked; returns whether that closes the breaker."""
        self._failures.clear()
        self._refusals.clear()
        self._pauses = 0
        return self._close()

    def refused(self, owner: Owner, reason: str, *, first: bool) -> bool:
        """Take in that the store refused an image; returns whether that changes the state.

        :param first: whether the image had not failed before.
        """
        self._failures.clear()
        self._pauses = 0
        if first:
            self._refusals.add(owner)
        if not self._refusals.is_full:
            return self._close()
        if self.state is State.FORCED_OPEN:
            return False
        changed = self.state is State.CLOSED
        self.state, self.reason = State.HALF_OPEN, reason
        return changed

    def failed(
        self, now: float, owner: Owner, reason: str, *, first: bool = True, at_once: bool = False
    ) -> bool:
        """Take in that the store failed; returns whether that opens a closed breaker.

        :param first: whether the image had not failed before; one that had is no new evidence.
        :param at_once: one failure is enough.
        """
        if self.state is State.FORCED_OPEN:
            return False
        opens = self.state is State.CLOSED
        if opens:
            if first:
                self._failures.add(owner)
            if not at_once and not self._failures.is_full:
                return False
        if self.state_at(now) is not State.OPEN:
            growth = _PAUSE_GROWTH ** min(self._pauses, _MOST_PAUSES)
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * growth)
            self._pauses += 1
            self.opened_until = now + pause * self._uniform(0.75, 1.25)
        self.state, self.reason = State.OPEN, reason
        return opens

    def force_open(self, reason: str) -> bool:
        """Let nothing through until :meth:`reset`; returns whether that is new."""
        new = self.state is not State.FORCED_OPEN
        self.state, self.reason = State.FORCED_OPEN, reason
        return new

    def reset(self) -> None:
        """Take in that an operator, or a proof, says that the store may be asked again."""
        if self.state is State.FORCED_OPEN:
            self.state, self.reason = State.CLOSED, ""

    def _close(self) -> bool:
        if self.state in {State.OPEN, State.HALF_OPEN}:
            self.state, self.reason = State.CLOSED, ""
            return True
        return False
