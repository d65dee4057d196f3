# SPDX-License-Identifier: Apache-2.0
"""A claimed image: its locations, its lease, and how far it is."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from evscrub.domain.clock import Moment
from evscrub.domain.decisions import Kind, LocationRow
from evscrub.domain.verdict import FINISHED, UNSURE, Outcome, Verdict
from evscrub.queueing.delay_queue import Source
from evscrub.registry.claims import Claim, Settlement
from evscrub.stores.backends import Target

#: Why an image is finished without a delete that has no location left.
NO_LOCATION = "no_location"


class JobState(Enum):
    """How far a job is; see :class:`Job`."""

    WAITING = "waiting"
    DELETING = "deleting"
    ENDED = "ended"
    SETTLED = "settled"


class LocationState(Enum):
    """What is known of the data at a location."""

    PENDING = "pending"  #: not tried
    DELETED = "deleted"  #: the store deleted it
    MISSING = "missing"  #: the store does not have it, and is the right one
    KEPT = "kept"  #: it stays: another location needs it, or the store is not one to delete in
    UNPROVEN = "unproven"  #: the store does not have it, and may be the wrong one
    FAILED = "failed"  #: the delete failed


#: States of locations whose rows are done with.
_DONE = frozenset({LocationState.DELETED, LocationState.MISSING, LocationState.KEPT})


@dataclass(slots=True, eq=False)
class Location:
    """A location of a job.

    :param target: where the data is; None where no usable store has it.
    :param twins: ids of further rows for the same object, which share its state.
    :param store: the store that the verdict came from; empty for none.
    :param verdict: of the delete, or of what forbade it; None before.
    """

    row: LocationRow
    target: Target | None = None
    twins: list[int] = field(default_factory=list)
    state: LocationState = LocationState.PENDING
    store: str = ""
    verdict: Verdict | None = None

    @property
    def ids(self) -> list[int]:
        """Ids of its row and of its twins'."""
        return [self.row.id, *self.twins]

    @property
    def is_whole(self) -> bool:
        """Whether the data is known to be as it was."""
        if self.state is LocationState.FAILED:
            return self.verdict is not None and self.verdict.outcome not in UNSURE
        return True


@dataclass(slots=True)
class Lease:
    """A claim's lease.

    :param stamp: its time in the registry, as last renewed.
    :param asked: when that was asked for; the lease is no older than that.
    :param is_lost: it ran out, or another agent took the claim over: nothing more may be deleted.
    """

    stamp: datetime
    asked: Moment
    is_lost: bool = False


class WrongStateError(RuntimeError):
    """A job was told to do what it cannot do in its state: a defect of evscrub."""


@dataclass(slots=True, eq=False)
class Job:
    """A claimed image on its way to settlement.

    ::

        claim ─> WAITING ──start()──> DELETING ──judge()…──> stop()
                  │    ^                                       │
                  │    └───────── a location is left ──────────┤
                  └──end()──> ENDED <──────────end()───────────┘
                                │
                                └──settled()──> SETTLED

    WAITING, it is in one lane's backlog, or on its way to one. DELETING, one worker has it, and
    deletes one location after another. ENDED, the settler has it. Only the event loop changes a
    job; a worker's thread reads its locations and its lease, and sets `begun_at`.

    :param looked: when it was last asked who else needs the data; before the claim at first.
    :param needed_elsewhere: what that look told of pending locations, by row id.
    :param due: when the image fell due, seconds since the epoch.
    :param ready_at: since when it could have begun, seconds since the epoch.
    :param first: the image had not failed before, so that a failure is evidence against its store.
    :param trouble: the last failure, with the store it came from.
    :param begun_at: when its first delete began, seconds since the epoch; None before.
    :param ended_at: when the last location was judged, seconds since the epoch; 0 before.
    """

    claim: Claim
    lease: Lease
    due: float
    source: Source
    locations: list[Location] = field(default_factory=list)
    ready_at: float = 0.0
    first: bool = True
    state: JobState = JobState.WAITING
    looked: Moment = field(init=False)
    needed_elsewhere: Mapping[int, Verdict] = field(default_factory=dict)
    trouble: tuple[str, Verdict] | None = None
    begun_at: float | None = None
    ended_at: float = 0.0

    def __post_init__(self) -> None:
        self.looked = self.lease.asked

    @property
    def image_id(self) -> str:
        return self.claim.image.id

    @property
    def owner(self) -> str | None:
        return self.claim.image.owner

    @property
    def pending(self) -> Iterator[tuple[Location, Target]]:
        """The locations that are still to be deleted, each with its target, in order."""
        for location in self.locations:
            if location.state is LocationState.PENDING and location.target is not None:
                yield location, location.target

    @property
    def next_store(self) -> str | None:
        """The store of the next location; None when there is none left."""
        return next((target.store for _, target in self.pending), None)

    @property
    def is_complete(self) -> bool:
        """Whether every location is gone, or needs no deleting."""
        return self.trouble is None and all(each.state in _DONE for each in self.locations)

    @property
    def data_went(self) -> bool:
        """Whether a store had data of it, or has it no more."""
        return any(
            each.state in {LocationState.DELETED, LocationState.MISSING} for each in self.locations
        )

    @property
    def missing_in(self) -> set[str]:
        """The stores that did not have data of it and were proven."""
        return {each.store for each in self.locations if each.state is LocationState.MISSING}

    @property
    def why_nothing_went(self) -> str:
        """Why no data was deleted: a verdict's reason, or :data:`NO_LOCATION`."""
        reasons = (each.verdict.reason for each in self.locations if each.verdict is not None)
        return next(reasons, NO_LOCATION)

    # -- transitions

    def start(self) -> None:
        """Take in that a worker has it."""
        self._go({JobState.WAITING}, JobState.DELETING)

    def stop(self) -> None:
        """Take in that its worker is done with it."""
        self._go({JobState.DELETING}, JobState.WAITING)

    def end(self) -> None:
        """Take in that nothing more is deleted under this claim."""
        self._go({JobState.WAITING}, JobState.ENDED)

    def settled(self) -> None:
        """Take in that the registry has its result."""
        self._go({JobState.ENDED}, JobState.SETTLED)

    def _go(self, allowed: Collection[JobState], state: JobState) -> None:
        if self.state not in allowed:
            raise WrongStateError(f"Job {self.image_id} is {self.state.value}, not {allowed}")
        self.state = state

    # -- locations

    def judge(self, location: Location, store: str, verdict: Verdict, now: float) -> None:
        """Take in the verdict on a location.

        :param now: seconds since the epoch.
        :raises WrongStateError: it has one, or the job has ended.
        """
        if location.state is not LocationState.PENDING or self.state in _OVER:
            raise WrongStateError(f"Job {self.image_id}: a location is judged twice, or too late")
        self.ended_at = now
        location.store, location.verdict = store, verdict
        location.state = _state_of(verdict)
        if location.state not in _DONE:
            self.trouble = (store, verdict)

    def keep(self, shared: Mapping[int, Verdict], now: float) -> None:
        """Judge pending locations whose data another location may need.

        :param shared: what holds of them, by row id.
        """
        for location, target in list(self.pending):
            if location.row.id in shared:
                self.judge(location, target.store, shared[location.row.id], now)

    def give_up(self, trouble: tuple[str, Verdict]) -> None:
        """Leave the pending locations for another claim: what became of them is not known."""
        self.trouble = trouble
        for location, _ in list(self.pending):
            location.state = LocationState.FAILED

    def settlement(self) -> Settlement:
        """Return how this ends: what was not deleted is left, whether it was tried or not."""
        return Settlement(
            self.image_id,
            self.lease.stamp,
            [number for each in self.locations if each.state in _DONE for number in each.ids],
            [number for each in self.locations if each.state not in _DONE for number in each.ids],
            whole=self.claim.kind is Kind.PENDING and all(each.is_whole for each in self.locations),
        )


_OVER = frozenset({JobState.ENDED, JobState.SETTLED})


def _state_of(verdict: Verdict) -> LocationState:
    if verdict.outcome is Outcome.GONE:
        return LocationState.MISSING if verdict.is_missing else LocationState.DELETED
    if verdict.outcome in FINISHED:
        return LocationState.KEPT
    if verdict.outcome is Outcome.UNPROVEN:
        return LocationState.UNPROVEN
    return LocationState.FAILED
