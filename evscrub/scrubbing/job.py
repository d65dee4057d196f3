# SPDX-License-Identifier: Apache-2.0
"""A claimed image: its locations, its lease and its state."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from evscrub.domain.clock import Moment
from evscrub.domain.decisions import Kind, LocationRow
from evscrub.domain.verdict import FINISHED, UNSURE, Outcome, Verdict
from evscrub.queueing.delay_queue import Source
from evscrub.registry.claims import Claim, Settlement
from evscrub.stores.backends import Target

#: Reason of an image that is finished without a delete because it has no location left.
NO_LOCATION = "no_location"


class JobState(Enum):
    """State of a job; see :class:`Job`."""

    WAITING = "waiting"
    DELETING = "deleting"
    ENDED = "ended"
    SETTLED = "settled"


class LocationState(Enum):
    """State of the data at a location."""

    PENDING = "pending"  #: not attempted
    DELETED = "deleted"  #: the store deleted it
    MISSING = "missing"  #: the store does not have it, and is proven
    KEPT = "kept"  #: stays: another location shares it, or it is not ours to delete
    UNPROVEN = "unproven"  #: the store does not have it, and is not proven
    FAILED = "failed"  #: the delete failed


#: States of locations whose rows are settled as deleted.
_DONE = (LocationState.DELETED, LocationState.MISSING, LocationState.KEPT)


@dataclass(slots=True, eq=False)
class Location:
    """A location of a job.

    :param target: the data to delete; None if there is nothing to delete, or no usable store.
    :param twins: ids of other rows for the same object, which share its state.
    :param store: store that the verdict is about; empty if none.
    :param verdict: result of the delete, or why it was not attempted; None until judged.
    """

    row: LocationRow
    target: Target | None = None
    twins: list[int] = field(default_factory=list)
    state: LocationState = LocationState.PENDING
    store: str = ""
    verdict: Verdict | None = None

    @property
    def ids(self) -> list[int]:
        """Ids of the location's row and its twins."""
        return [self.row.id, *self.twins]

    @property
    def is_whole(self) -> bool:
        """Whether the data is known to be untouched by a failed delete."""
        if self.state is LocationState.FAILED:
            return self.verdict is not None and self.verdict.outcome not in UNSURE
        return True


@dataclass(slots=True)
class Lease:
    """A claim's lease.

    :param stamp: its time in the registry, as last renewed.
    :param asked: when the claim or renewal was requested; upper bound of the lease's age.
    :param is_lost: whether it expired or was taken over; nothing more may be deleted then.
    """

    stamp: datetime
    asked: Moment
    is_lost: bool = False


class WrongStateError(RuntimeError):
    """Raised for a transition that a job's state does not allow; a defect of evscrub."""


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

    WAITING: in a lane's backlog, or about to be. DELETING: one worker has it and deletes its next
    location. ENDED: the settler has it. Apart from `begun_at`, which a worker thread sets, only the
    event loop changes a job.

    :param looked: when the registry was last asked whether the data is shared; initially the time
        of the claim.
    :param needed_elsewhere: the answer for pending locations, by row id.
    :param due: when the image fell due, seconds since the epoch.
    :param ready_at: when the image was ready for this attempt, seconds since the epoch.
    :param first: whether the image had not failed before; only then is a failure evidence against
        its store.
    :param trouble: store and verdict of the last failure; None without one.
    :param begun_at: start of the first delete, seconds since the epoch; None until then.
    :param ended_at: when the last location was judged, seconds since the epoch; 0 until then.
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
        """The locations still to be deleted, in order, each with its target."""
        for location in self.locations:
            if location.state is LocationState.PENDING and location.target is not None:
                yield location, location.target

    @property
    def next_store(self) -> str | None:
        """The store of the next pending location; None if none is left."""
        return next((target.store for _, target in self.pending), None)

    @property
    def stores(self) -> set[str]:
        """The stores of all locations, deleted or not."""
        return {each.target.store for each in self.locations if each.target is not None}

    @property
    def is_complete(self) -> bool:
        """Whether the image is done: each location is deleted, missing or kept."""
        return self.trouble is None and all(each.state in _DONE for each in self.locations)

    @property
    def data_went(self) -> bool:
        """Whether at least one location was deleted or is proven missing."""
        return any(
            each.state in (LocationState.DELETED, LocationState.MISSING) for each in self.locations
        )

    @property
    def missing_in(self) -> set[str]:
        """The stores in which a location was proven missing."""
        return {each.store for each in self.locations if each.state is LocationState.MISSING}

    @property
    def why_nothing_went(self) -> str:
        """Why no data was deleted: the first verdict's reason, or :data:`NO_LOCATION`."""
        reasons = (each.verdict.reason for each in self.locations if each.verdict is not None)
        return next(reasons, NO_LOCATION)

    # -- transitions

    def start(self) -> None:
        """Move from WAITING to DELETING: a worker takes the job.

        :raises WrongStateError: the job is not WAITING.
        """
        self._go(JobState.WAITING, JobState.DELETING)

    def stop(self) -> None:
        """Move from DELETING to WAITING: the worker returns the job.

        :raises WrongStateError: the job is not DELETING.
        """
        self._go(JobState.DELETING, JobState.WAITING)

    def end(self) -> None:
        """Move from WAITING to ENDED: nothing more is deleted under this claim.

        :raises WrongStateError: the job is not WAITING.
        """
        self._go(JobState.WAITING, JobState.ENDED)

    def settled(self) -> None:
        """Move from ENDED to SETTLED: the result is in the registry.

        :raises WrongStateError: the job is not ENDED.
        """
        self._go(JobState.ENDED, JobState.SETTLED)

    def _go(self, before: JobState, state: JobState) -> None:
        if self.state is not before:
            raise WrongStateError(f"Job {self.image_id} is {self.state.value}, not {before.value}")
        self.state = state

    # -- locations

    def judge(self, location: Location, store: str, verdict: Verdict, now: float) -> None:
        """Record the verdict on a pending location.

        :param store: store that the verdict is about; empty if none.
        :param now: seconds since the epoch.
        :raises WrongStateError: the location is not pending, or the job has ended.
        """
        if location.state is not LocationState.PENDING or self.state in _OVER:
            raise WrongStateError(f"Job {self.image_id}: location judged twice, or after the end")
        self.ended_at = now
        location.store, location.verdict = store, verdict
        location.state = _state_of(verdict)
        if location.state not in _DONE:
            self.trouble = (store, verdict)

    def keep(self, shared: Mapping[int, Verdict], now: float) -> None:
        """Judge the pending locations that may share their data with others.

        :param shared: verdicts by row id.
        :param now: seconds since the epoch.
        """
        for location, target in list(self.pending):
            if location.row.id in shared:
                self.judge(location, target.store, shared[location.row.id], now)

    def give_up(self, trouble: tuple[str, Verdict]) -> None:
        """Mark the pending locations as failed, because the state of their data is unknown.

        :param trouble: the failure, with its store.
        """
        self.trouble = trouble
        for location, _ in list(self.pending):
            location.state = LocationState.FAILED

    def settlement(self) -> Settlement:
        """Return what to write to the registry: locations that are done and those left pending."""
        return Settlement(
            self.image_id,
            self.lease.stamp,
            [number for each in self.locations if each.state in _DONE for number in each.ids],
            [number for each in self.locations if each.state not in _DONE for number in each.ids],
            whole=self.claim.kind is Kind.PENDING and all(each.is_whole for each in self.locations),
        )


_OVER = (JobState.ENDED, JobState.SETTLED)


def _state_of(verdict: Verdict) -> LocationState:
    if verdict.outcome is Outcome.GONE:
        return LocationState.MISSING if verdict.is_missing else LocationState.DELETED
    if verdict.outcome in FINISHED:
        return LocationState.KEPT
    if verdict.outcome is Outcome.UNPROVEN:
        return LocationState.UNPROVEN
    return LocationState.FAILED
