# SPDX-License-Identifier: Apache-2.0
"""Whether a store may be asked at all: a breaker for one that fails, a fuse for one that lies.

Pure. The breaker opens after some failures in a row and lets one request through now and then until
the store answers. The fuse is for a store that says of everything that it is not there, as an
unmounted file store and a bucket of another name do: it blows, and only an operator can set it
right.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from evscrub.rules import Kind

#: Failures in a row that open the breaker.
FAILURES = 5
_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 60.0


class State(Enum):
    """What a store's breaker lets through."""

    CLOSED = "closed"  #: everything
    OPEN = "open"  #: nothing, until it is time for a probe
    PROBING = "probing"  #: one request, which decides
    BLOWN = "blown"  #: nothing, until an operator says so


@dataclass(slots=True)
class Breaker:
    """The breaker and the fuse of one store.

    :param not_found_limit: "not found" in a row that blow the fuse; 0 for no fuse.
    :param uniform: draws a number between two, for jitter.
    """

    not_found_limit: int
    uniform: Callable[[float, float], float]
    state: State = State.CLOSED
    reason: str = ""
    opened_until: float = 0.0
    reset_at: float = float("-inf")
    _failures: int = field(default=0, init=False)
    _not_found: int = field(default=0, init=False)
    _pauses: int = field(default=0, init=False)

    def lets_through(self, now: float, running: int) -> int | None:
        """How many requests may begin now; None for any number.

        :param running: requests under way.
        """
        if self.state is State.CLOSED:
            return None
        if self.state is State.OPEN and now >= self.opened_until:
            self.state = State.PROBING
        return 1 if self.state is State.PROBING and not running else 0

    def answered(self) -> bool:
        """The store did what it was asked, or said plainly why not; returns whether that closes."""
        self._failures = self._pauses = 0
        if self.state in {State.OPEN, State.PROBING}:
            self.state, self.reason = State.CLOSED, ""
            return True
        return False

    def deleted(self) -> None:
        """The store had the data: it is the right one."""
        self._not_found = 0

    def failed(self, now: float, reason: str, *, at_once: bool = False) -> bool:
        """The store failed; returns whether that opens the breaker.

        :param at_once: one failure is enough.
        """
        self._failures += 1
        if self.state is State.BLOWN or (
            self.state is State.CLOSED and self._failures < FAILURES and not at_once
        ):
            return False
        opens = self.state is State.CLOSED
        if self.state is not State.OPEN:
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(self._pauses, 10))
            self._pauses += 1
            self.opened_until = now + pause * self.uniform(0.75, 1.25)
        self.state, self.reason = State.OPEN, reason
        return opens

    def not_found(self) -> bool:
        """The store says that the data is not there; returns whether that blows the fuse."""
        self._not_found += 1
        if not self.not_found_limit or self._not_found < self.not_found_limit:
            return False
        return self.blow(f"{self._not_found} images in a row are not found in it")

    def doubts(self, kind: Kind) -> bool:
        """Whether "not found" is taken with doubt; of a claim taken over it is to be expected."""
        return bool(self.not_found_limit) and kind is not Kind.STALE

    def blow(self, reason: str) -> bool:
        """Let nothing through until :meth:`reset`; returns whether that is new."""
        new = self.state is not State.BLOWN
        self.state, self.reason = State.BLOWN, reason
        return new

    def reset(self, now: float) -> None:
        """An operator says that the store may be asked again."""
        self.reset_at = now
        if self.state is State.BLOWN:
            self.state, self.reason = State.CLOSED, ""
        self._not_found = 0
