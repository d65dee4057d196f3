# SPDX-License-Identifier: Apache-2.0
"""The health of a store: attributes failures to the store, to one owner, or to one image. Pure.

O(1) per answer, in bounded memory. Failures that several owners share change the store's breaker
and pace; failures of one owner's images stop only that owner.

* An answer about one image, for instance that it is in use, counts as an answer of the store.
* An image that failed before is no new evidence when it fails again.
* Failures of an owner who is alone in the store are attributed to the store, and to that owner as
  soon as another owner's image arrives; see :meth:`Health.make_way`.
* A part of the store without a recent good answer, for instance a foreign server named in an
  image's location, is evidence only against its images' owners while another part works.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from evscrub.domain.evidence import Origin, Owner, Scope
from evscrub.domain.verdict import (
    EMPTY_DIRECTORY,
    GONE,
    MISSING_DIRECTORY,
    PAUSING,
    PAUSING_ALONE,
    UNPROVEN,
    Outcome,
    Verdict,
)
from evscrub.flow_control.adaptive_limit import Pace, PaceStatistics
from evscrub.flow_control.circuit_breaker import Breaker, State

#: Maximum number of owners whose failures are tracked.
_OWNERS = 1000
#: Maximum number of working parts of a store that are tracked, and how long a good answer counts.
_PARTS = 64
_GOOD_SECONDS = 600.0
#: Owners answered within this time share the store; overload of two of them within this time is
#: evidence of overload of the store.
_TOGETHER_SECONDS = 10.0
#: Verdicts that pause a file store at once, and the reason to show.
NOT_MOUNTED = {
    MISSING_DIRECTORY: "its directory is missing",
    EMPTY_DIRECTORY: "its directory is empty",
}


class Event(Enum):
    """Kind of a :class:`Change`."""

    SLOWED = "slowed"
    RECOVERED = "recovered"
    OPENED = "opened"
    REFUSING = "refusing"
    CLOSED = "closed"
    IDLE = "idle"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Change:
    """Change of a store's health that an answer caused.

    :param owner: the owner, if the scope is one owner's images.
    :param reason: cause of the change; empty for a recovery.
    """

    event: Event
    scope: Scope = Scope.STORE
    owner: Owner = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HealthStatistics:
    """The health of a store at one moment.

    :param breaker: the state of the store's circuit breaker.
    :param reason: why the breaker is not closed; empty if it is.
    :param owners_stopped: number of owners whose breaker is not closed.
    """

    breaker: State
    reason: str
    owners_stopped: int
    pace: PaceStatistics


class Health:
    """The breaker and pace of a store, and the breakers of owners in it.

    :param uniform: returns a random number between two bounds, for jitter.
    """

    def __init__(self, pace: Pace, uniform: Callable[[float, float], float]) -> None:
        self.pace = pace
        self.breaker = Breaker(uniform)
        self.shut: dict[Owner, Breaker] = {}  #: breakers that are not closed, by owner
        # The lone owner who slowed the store, or shut it, in a tuple, for None is an owner too.
        self._slowed_by: tuple[Owner] | None = None
        self._shut_by: tuple[Owner] | None = None
        self._uniform = uniform
        self._failing: dict[Owner, Breaker] = {}
        self._good_at: dict[str, float] = {}
        self._last: tuple[Owner] | None = None  # the owner of the last answer
        self._others_at = float("-inf")  # when an owner was answered after another
        self._overloaded: tuple[Owner, float] = (None, float("-inf"))

    def statistics(self, now: float) -> HealthStatistics:
        """Return the current statistics.

        :param now: seconds since boot.
        """
        state = self.breaker.state_at(now)
        return HealthStatistics(
            state,
            self.breaker.reason if state is not State.CLOSED else "",
            len(self.shut),
            self.pace.statistics(),
        )

    def answered(
        self, verdict: Verdict, origin: Origin, now: float, *, alone: bool
    ) -> Change | None:
        """Record the answer to a delete.

        :param now: seconds since boot.
        :param alone: whether no other owner's image waits or is being deleted.
        :returns: the change of state that the answer caused; None without one.
        """
        if self._last != (origin.owner,):
            if self._last is not None:
                self._others_at = now
            self._last = (origin.owner,)
        alone = alone and now - self._others_at >= _TOGETHER_SECONDS
        if verdict is GONE:
            return self._good(verdict, origin, now)
        match verdict.outcome:
            case Outcome.UNPROVEN if verdict == UNPROVEN:
                return None
            case Outcome.TRANSIENT | Outcome.UNKNOWN | Outcome.UNPROVEN:
                slowed = self._follow_overload(verdict, origin, now, alone=alone)
                return self._failed(verdict, origin, now, alone=alone) or slowed
            case Outcome.STORE_TROUBLE:
                return self._in_trouble(verdict, origin, now, alone=alone)
            case Outcome.REFUSED:
                return self._refused(verdict, origin, alone=alone)
            case Outcome.CONFIGURATION:
                return None
        return self._good(verdict, origin, now)

    def _in_trouble(
        self, verdict: Verdict, origin: Origin, now: float, *, alone: bool
    ) -> Change | None:
        """Open the store's breaker at once, for trouble that one answer proves."""
        if verdict.reason in PAUSING_ALONE:
            if not alone or self.breaker.state is State.FORCED_OPEN:
                return None
            change = self.force_open(verdict.hint)
            self._shut_by = (origin.owner,)
            return change
        if verdict in NOT_MOUNTED or verdict.reason in PAUSING:
            return self.force_open(NOT_MOUNTED.get(verdict, verdict.hint))
        self._shut_by = None
        opened = self.breaker.failed(now, origin.owner, verdict.reason, at_once=True)
        return Change(Event.OPENED, reason=verdict.reason) if opened else None

    def force_open(self, reason: str) -> Change | None:
        """Pause the store until :meth:`reset`.

        :returns: the change; None if it was paused already.
        """
        self._shut_by = None
        return Change(Event.PAUSED, reason=reason) if self.breaker.force_open(reason) else None

    def reset(self) -> bool:
        """Resume a paused store, on behalf of the operator.

        :returns: whether it was paused.
        """
        was_paused = self.breaker.state is State.FORCED_OPEN
        if was_paused:
            self._new_breaker()
        return was_paused

    def end_pauses(self, now: float) -> None:
        """Let a probe through now where a breaker is open, the store's or an owner's.

        :param now: seconds since boot.
        """
        for breaker in (self.breaker, *self.shut.values()):
            breaker.end_pause(now)

    def close_idle(
        self, now: float, has_image: Callable[[Owner], bool], is_idle: Callable[[], bool]
    ) -> list[Change]:
        """Close the breakers whose next probe has no image, for instance as another agent took it.

        :param now: seconds since boot.
        :param has_image: tells whether an image of an owner failed in the store or is claimed.
        :param is_idle: tells whether the store has no image that failed, is ready or is claimed.
        :returns: the changes of state.
        """
        changes = []
        for owner, breaker in list(self.shut.items()):
            if breaker.state_at(now) is State.HALF_OPEN and not has_image(owner):
                self._owner_answered(owner)
                changes.append(Change(Event.IDLE, Scope.OWNER, owner))
        if self.breaker.state_at(now) is State.HALF_OPEN and is_idle():
            self._new_breaker()
            changes.append(Change(Event.IDLE))
        return changes

    @property
    def blamed(self) -> tuple[Owner] | None:
        """The lone owner who caused the store's limits, in a tuple; None if no single owner did."""
        return self._slowed_by or self._shut_by

    def make_way(self) -> None:
        """Restrict limits caused by a lone owner to that owner; call it when others arrive.

        The pace is restored, and the store's breaker becomes the owner's.
        """
        if self._slowed_by is not None:
            self._slowed_by = None
            self.pace.restore()
        if self._shut_by is not None:
            (owner,) = self._shut_by
            # A forced-open breaker is dropped: each image waits for a proof anyway.
            if self.breaker.state is not State.FORCED_OPEN:
                self._failing[owner] = self.shut[owner] = self.breaker
            self._new_breaker()

    # -- internal

    def _good(self, verdict: Verdict, origin: Origin, now: float) -> Change | None:
        was_slowed = self.pace.is_slowed
        self.pace.answered(now)
        if verdict is GONE:
            self._note_good(origin.endpoint, now)
        owner_closes = bool(self._failing) and self._owner_answered(origin.owner)
        if self.breaker.answered():
            self._new_breaker()
            return Change(Event.CLOSED)
        if owner_closes:
            return Change(Event.CLOSED, Scope.OWNER, origin.owner)
        if was_slowed and not self.pace.is_slowed:
            self._slowed_by = None
            return Change(Event.RECOVERED)
        return None

    def _refused(self, verdict: Verdict, origin: Origin, *, alone: bool) -> Change | None:
        was_open = self.breaker.state is not State.CLOSED
        if self.breaker.refused(origin.owner, verdict.why, first=origin.first):
            if was_open:
                self._new_breaker()
                return Change(Event.CLOSED)
            return Change(Event.REFUSING, reason=verdict.why)
        if was_open:
            return None
        breaker = self._breaker_of(origin.owner)
        was_open = breaker.state is not State.CLOSED
        if not breaker.refused(origin.owner, verdict.why, first=origin.first):
            return None
        if was_open:
            self.shut.pop(origin.owner, None)
            return Change(Event.CLOSED, Scope.OWNER, origin.owner)
        return self._shut(Event.REFUSING, origin.owner, alone=alone)

    def _failed(
        self, verdict: Verdict, origin: Origin, now: float, *, alone: bool
    ) -> Change | None:
        owner, reason = origin.owner, verdict.why
        if self.breaker.state is not State.CLOSED:
            self.breaker.failed(now, owner, reason)
            return None
        breaker = self.shut.get(owner)
        if breaker is not None:
            breaker.failed(now, owner, reason)
            return None
        if not origin.first:
            return None
        of_store = self._is_of_store(origin.endpoint, now)
        if of_store and self.breaker.failed(now, owner, reason):
            # The store caused the owners' failures.
            self._failing.clear()
            self.shut.clear()
            return Change(Event.OPENED, reason=reason)
        breaker = self._breaker_of(owner)
        if not breaker.failed(now, owner, reason):
            return None
        return self._shut(Event.OPENED, owner, alone=alone)

    def _follow_overload(
        self, verdict: Verdict, origin: Origin, now: float, *, alone: bool
    ) -> Change | None:
        """Cut the pace for overload that several owners meet, or a lone one."""
        # A failed probe shows that the store is still down, not how much load it can take.
        closed = self.breaker.state is State.CLOSED and origin.owner not in self.shut
        if not (verdict.tells_overload and origin.first and closed):
            return None
        if not self._is_of_store(origin.endpoint, now):
            return None
        other, at = self._overloaded
        self._overloaded = (origin.owner, now)
        together = now - at < _TOGETHER_SECONDS and other != origin.owner
        was_slowed = self.pace.is_slowed
        if together:
            self._slowed_by = None
        if not (together or alone) or not self.pace.troubled(now):
            return None
        if not together and not was_slowed:
            self._slowed_by = (origin.owner,)
        return None if was_slowed else Change(Event.SLOWED)

    def _shut(self, event: Event, owner: Owner, *, alone: bool) -> Change:
        """Apply an owner's changed breaker to the owner, or to the store if the owner is alone."""
        breaker = self._failing[owner]
        if not alone:
            self.shut[owner] = breaker
            return Change(event, Scope.OWNER, owner, breaker.reason)
        del self._failing[owner]
        self.shut.pop(owner, None)
        self.breaker = breaker
        self._shut_by = (owner,)
        return Change(event, reason=breaker.reason)

    def _new_breaker(self) -> None:
        """Replace the store's breaker by a closed one."""
        self.breaker = Breaker(self._uniform)
        self._shut_by = None

    def _owner_answered(self, owner: Owner) -> bool:
        self._failing.pop(owner, None)
        return self.shut.pop(owner, None) is not None

    def _breaker_of(self, owner: Owner) -> Breaker:
        breaker = self._failing.get(owner)
        if breaker is None:
            if len(self._failing) >= _OWNERS:
                forgotten = next(iter(self._failing))
                del self._failing[forgotten]
                self.shut.pop(forgotten, None)
            breaker = self._failing[owner] = Breaker(self._uniform, of_one_owner=True)
        return breaker

    def _note_good(self, endpoint: str, now: float) -> None:
        if len(self._good_at) >= _PARTS and endpoint not in self._good_at:
            del self._good_at[min(self._good_at, key=self._good_at.__getitem__)]
        self._good_at[endpoint] = now

    def _is_of_store(self, endpoint: str, now: float) -> bool:
        """Return whether a failure of a part of the store is evidence against the whole store."""
        at = self._good_at.get(endpoint)
        if at is not None and now - at < _GOOD_SECONDS:
            return True
        return all(now - good_at >= _GOOD_SECONDS for good_at in self._good_at.values())
