# SPDX-License-Identifier: Apache-2.0
"""A claimed image on its way through the lanes."""

import itertools
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from evscrub.domain.clock import Moment
from evscrub.domain.decisions import Kind, LocationRow
from evscrub.domain.verdict import FINISHED, UNSURE, Outcome, Verdict
from evscrub.queueing.delay_queue import Source
from evscrub.registry.claims import Claim, Settlement
from evscrub.stores.backends import Target

#: Why an image is finished without a delete that has no location left.
NO_LOCATION = "no_location"


@dataclass(slots=True)
class Work:
    """What is left to do of a claim, and what was done.

    :param lease: as last renewed.
    :param asked: when the lease was asked for; it is no older than that.
    :param looked: when it was last asked who else wants the data; before the claim at first.
    :param due: when the image fell due, seconds since the epoch.
    :param targets: the locations still to delete, each with its store.
    :param twins: ids of locations that are of the same object as one of those, by its id: what
        becomes of it becomes of them.
    :param not_found: those of `gone` that the store said it does not have.
    :param trouble: the last failure, with the store it came from.
    :param lost: the lease ran out or was taken over: nothing more may be deleted.
    :param ended_at: when the last location was judged, seconds since the epoch.
    :param ready_at: since when it could have begun, seconds since the epoch.
    :param begun_at: when its first delete began, seconds since the epoch; None before.
    :param unsure: a delete failed in a way that leaves open whether the data is still there.
    :param first: the image had not failed before, so that a failure is evidence against its store.
    :param outcomes: the store and the verdict of each judged location, by its row's id.
    """

    claim: Claim
    lease: datetime
    asked: Moment
    looked: Moment = field(init=False)
    due: float
    source: Source
    targets: deque[tuple[LocationRow, Target]] = field(default_factory=deque)
    twins: dict[int, list[int]] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    not_found: list[int] = field(default_factory=list)
    trouble: tuple[str, Verdict] | None = None
    lost: bool = False
    ended_at: float = 0.0
    ready_at: float = 0.0
    begun_at: float | None = None
    unsure: bool = False
    first: bool = True
    outcomes: dict[int, tuple[str, Verdict]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.looked = self.asked

    @property
    def image_id(self) -> str:
        return self.claim.image.id

    @property
    def owner(self) -> str | None:
        return self.claim.image.owner

    @property
    def next_store(self) -> str | None:
        """The store of the next location, None when there is none left."""
        return self.targets[0][1].store if self.targets else None

    def targets_in(self, store: str) -> Iterator[Target]:
        """The next locations, as far as they are in one store."""
        return itertools.takewhile(
            lambda target: target.store == store, (target for _, target in self.targets)
        )

    @property
    def is_complete(self) -> bool:
        """Whether every location is gone, or needs no deleting."""
        return not self.left and not self.targets and self.trouble is None

    @property
    def data_went(self) -> bool:
        """Whether a store had data of it, or has it no more."""
        return any(verdict.outcome is Outcome.GONE for _, verdict in self.outcomes.values())

    @property
    def why_nothing_went(self) -> str:
        """Why no data was deleted: a verdict's reason, or :data:`NO_LOCATION`."""
        reasons = [verdict.reason for _, verdict in self.outcomes.values()]
        return reasons[0] if reasons else NO_LOCATION

    def judged(self, row: LocationRow, store: str, verdict: Verdict, now: float) -> None:
        """Take in the verdict on a location."""
        self.ended_at = now
        self.outcomes[row.id] = (store, verdict)
        ids = self._with_twins(row)
        if verdict.outcome not in FINISHED:
            self.left += ids
            self.trouble = (store, verdict)
            self.unsure |= verdict.outcome in UNSURE
            return
        self.gone += ids
        if verdict.is_missing:
            self.not_found += ids

    def put_back(self, trouble: tuple[str, Verdict]) -> None:
        """Leave all locations that were not judged, none of which was tried."""
        self.trouble = trouble
        self.left += self._untried()
        self.targets.clear()

    def give_up(self, trouble: tuple[str, Verdict]) -> None:
        """Leave all locations that were not judged, whatever became of them."""
        self.unsure = True
        self.put_back(trouble)

    def spare(self, shared: Mapping[int, Verdict], now: float) -> None:
        """Judge targets whose data another location may want.

        :param shared: what holds of them, by row id.
        """
        targets, self.targets = self.targets, deque()
        for row, target in targets:
            if row.id in shared:
                self.judged(row, target.store, shared[row.id], now)
            else:
                self.targets.append((row, target))

    def settlement(self) -> Settlement:
        """How this ends: what was not deleted is left, whether it was tried or not."""
        return Settlement(
            self.image_id,
            self.lease,
            self.gone,
            [*self.left, *self._untried()],
            whole=self.claim.kind is Kind.PENDING and not self.unsure,
        )

    def _untried(self) -> list[int]:
        return [number for row, _ in self.targets for number in self._with_twins(row)]

    def _with_twins(self, row: LocationRow) -> list[int]:
        return [row.id, *self.twins.get(row.id, ())]
