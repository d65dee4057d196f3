# SPDX-License-Identifier: Apache-2.0
"""A circuit breaker, for a store or for one owner's images in it. Pure.

The breaker opens after several failures in a row; then it lets one probe through after each pause,
until the store answers. A store that answers but refuses one image after another is not down: its
breaker is half-open without a pause, and lets one image through at a time until one is deleted.
"""

from collections.abc import Callable
from enum import Enum

from evscrub.domain.evidence import Owner, Tally

#: Failures in a row that open the breaker of a store; at most three of one owner count, so that it
#: takes two owners.
FAILURES = 5
_FAILURES_OF_OWNER = 3
#: Refusals in a row that make a breaker half-open; at most ten of one owner count.
REFUSALS = 20
_REFUSALS_OF_OWNER = 10
#: Pauses grow slowly, so that bad images delay the first good one behind them only a little:
#: fourteen of them by 13 s. A store that is down gets about 20 requests in the first minute, and
#: one a minute later.
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 60.0
_PAUSE_GROWTH = 1.3
_MOST_PAUSES = 30


class State(Enum):
    """State of a breaker; the values are used in metrics and on the status page."""

    CLOSED = "closed"  #: lets everything through
    OPEN = "open"  #: lets nothing through until its pause is over
    HALF_OPEN = "probing"  #: lets one request through at a time
    FORCED_OPEN = "blown"  #: lets nothing through until it is replaced


class Breaker:
    """A circuit breaker.

    ::

                  failures in a row         its pause is over, or end_pause()
        CLOSED ──────────────────────> OPEN ─────────────────────────> HALF_OPEN
          ^  │                           ^            the probe fails     │   ^
          │  │                           └────────────────────────────────┤   │
          │  └── refusals in a row ───────────────────────────────────────┼───┘
          └───────────────────────── the probe succeeds ──────────────────┘

        any ── force_open() ──> FORCED_OPEN

    A probe needs an image: once none is left that failed, the breaker is replaced by a closed one;
    see :meth:`evscrub.flow_control.health.Health.close_idle`, and after a repair by its
    :meth:`~evscrub.flow_control.health.Health.reset`. Queries do not change it: whether a
    pause is over follows from the time that is passed in.
    All times are seconds of one monotonic clock.

    :param uniform: returns a random number between two bounds, for jitter.
    :param of_one_owner: whether it is for one owner's images rather than for a whole store.
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
        """Return how many requests may start now, 0 or 1; None for any number.

        :param running: requests in flight.
        """
        if self.state is State.CLOSED:
            return None
        return 1 if self.state_at(now) is State.HALF_OPEN and not running else 0

    def state_at(self, now: float) -> State:
        """Return the state at a time; :attr:`state` does not reflect the end of a pause."""
        over = self.state is State.OPEN and now >= self.opened_until
        return State.HALF_OPEN if over else self.state

    def answered(self) -> bool:
        """Record a success.

        :returns: whether it closed the breaker.
        """
        self._failures.clear()
        self._refusals.clear()
        self._pauses = 0
        return self._close()

    def refused(self, owner: Owner, reason: str, *, first: bool) -> bool:
        """Record that the store refused an image.

        :param first: whether the image had not failed before; only then does it count.
        :returns: whether the breaker closed, or changed from closed to half-open.
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

    def failed(self, now: float, owner: Owner, reason: str, *, at_once: bool = False) -> bool:
        """Record a failure.

        :param at_once: whether this failure alone opens the breaker.
        :returns: whether it opened a closed breaker.
        """
        if self.state is State.FORCED_OPEN:
            return False
        opens = self.state is State.CLOSED
        if opens:
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
        """Let nothing through any more.

        :returns: whether the state changed.
        """
        new = self.state is not State.FORCED_OPEN
        self.state, self.reason = State.FORCED_OPEN, reason
        return new

    def end_pause(self, now: float) -> None:
        """Let a probe through now if the breaker is open; otherwise do nothing.

        A breaker that was forced open stays so.
        """
        if self.state is State.OPEN:
            self.opened_until = min(self.opened_until, now)

    def _close(self) -> bool:
        if self.state in {State.OPEN, State.HALF_OPEN}:
            self.state, self.reason = State.CLOSED, ""
            return True
        return False
