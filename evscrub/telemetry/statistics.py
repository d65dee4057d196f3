# SPDX-License-Identifier: Apache-2.0
"""Record what an agent did: counts, and the images that failed or are damaged."""

from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from heapq import nlargest
from itertools import islice

from evscrub.domain.verdict import Outcome, Verdict
from evscrub.telemetry.histogram import Histogram, HistogramStatistics


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """An image that is done.

    :param late_seconds: from when it was due to when its last location was gone.
    :param data_went: whether its data is gone; False if the data stays, because another image
        shares it or its store is not Glance's.
    """

    image_id: str
    owner: str | None
    size_bytes: int
    late_seconds: float
    data_went: bool


class TroubleState(Enum):
    """What becomes of an image that failed."""

    PARKED = "parked"  #: Only an operator can help; it is retried rarely.
    IN_USE = "in use"  #: Clones or snapshots use its data; it is retried rarely.
    RETRYING = "retrying"  #: It is retried until it succeeds or is parked.


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an image could not be scrubbed so far.

    :param parked: whether only an operator can help, so that it is retried rarely.
    """

    verdict: Verdict
    tries: int
    parked: bool
    store: str
    owner: str | None

    @property
    def in_use(self) -> bool:
        """Whether clones or snapshots use the image's data; such an image is never parked."""
        return self.verdict.outcome is Outcome.IN_USE

    @property
    def state(self) -> TroubleState:
        """What becomes of the image."""
        return _state(parked=self.parked, in_use=self.in_use)


@dataclass(frozen=True, slots=True)
class RecordStatistics:
    """What an agent did since it started; each field is described at :class:`Record`.

    :param damaged: the number of damaged images.
    """

    scrubbed: int
    finished: Mapping[str, int]
    missed_by_bus: int
    leases_lost: int
    retries: int
    outcomes: Mapping[tuple[str, str, str], int]
    bytes_reclaimed: Mapping[str, int]
    left_alone: Mapping[str, int]
    late_seconds: tuple[float, ...]
    lateness: HistogramStatistics
    queued: HistogramStatistics
    worked: HistogramStatistics
    damaged: int


@dataclass(frozen=True, slots=True)
class TroubleGroup:
    """What images that failed for the same reason have in common."""

    store: str
    reason: str
    state: TroubleState


@dataclass(frozen=True, slots=True)
class TroubleStatistics:
    """Failed images at one moment: how many of each kind, and some of them by id.

    :param groups: the number of images in each group.
    :param parked: the parked images that were tried most often.
    :param in_use: the images kept by clones or snapshots that were tried most often.
    :param damaged: reasons of the damaged images that have been known longest.
    """

    groups: Mapping[TroubleGroup, int]
    parked: Mapping[str, Trouble]
    in_use: Mapping[str, Trouble]
    damaged: Mapping[str, str]

    def of_state(self, state: TroubleState) -> Mapping[TroubleGroup, int]:
        """Return the groups whose images are in a state."""
        return {group: images for group, images in self.groups.items() if group.state is state}

    def total(self, state: TroubleState) -> int:
        """Return how many images are in a state."""
        return sum(self.of_state(state).values())


@dataclass(frozen=True, slots=True)
class ImagesInTrouble:
    """All failed images, and the reasons of all damaged ones, by id."""

    troubles: Mapping[str, Trouble]
    damaged: Mapping[str, str]


@dataclass(slots=True)
class Record:
    """Record what one agent did since it started."""

    scrubbed: int = 0  #: images whose data is gone
    finished: Counter[str] = field(default_factory=Counter)
    """Images finished without deleting data, by reason."""
    #: Images found by a sweep that the bus should have announced to an agent.
    missed_by_bus: int = 0
    leases_lost: int = 0
    retries: int = 0  #: scheduled retries of images
    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Locations by store, outcome and reason, counted when the claim is settled."""
    bytes_reclaimed: Counter[str] = field(default_factory=Counter)
    """By store, counted when the claim is settled."""
    left_alone: Counter[str] = field(default_factory=Counter)
    """Images that were examined and not claimed, by reason."""
    late_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))
    lateness: Histogram = field(default_factory=Histogram)
    """From when images were due to when their last location was gone."""
    queued: Histogram = field(default_factory=Histogram)
    """From when images were due, first or again, to when their first delete began."""
    worked: Histogram = field(default_factory=Histogram)
    """From when images' first delete began to when they were settled."""
    troubles: dict[str, Trouble] = field(default_factory=dict)
    """By image id; only methods of this class change it."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Reasons by image id."""
    _damaged_lately: set[str] = field(default_factory=set)
    _failed_of: dict[str, Counter[str | None]] = field(default_factory=dict)

    def failed(self, image_id: str, trouble: Trouble) -> None:
        """Record why an image failed, instead of why it failed before."""
        self._uncount(image_id)
        self.troubles.pop(image_id, None)  # to be the last one, see Retries
        self.troubles[image_id] = _the_same(trouble)
        self._failed_of.setdefault(trouble.store, Counter())[trouble.owner] += 1

    def owners_failing(self, store: str) -> Collection[str | None]:
        """Return the owners of images that failed in a store."""
        return self._failed_of.get(store, {}).keys()

    def found_damaged(self, image_id: str, reason: str) -> bool:
        """Record a damaged image, which is not tried any more; return whether that is new."""
        self._forget_failures(image_id)
        new = image_id not in self.damaged
        self.damaged[image_id] = reason
        self._damaged_lately.add(image_id)
        return new

    def sweep_begins(self) -> None:
        """Prepare for a full sweep: forget damaged images not found since the last one."""
        self.damaged = {
            name: self.damaged[name] for name in self._damaged_lately & set(self.damaged)
        }
        self._damaged_lately.clear()

    def forget(self, image_id: str) -> None:
        """Forget an image's failures and damage, because it is in order."""
        self._forget_failures(image_id)
        self.damaged.pop(image_id, None)

    def _forget_failures(self, image_id: str) -> None:
        self._uncount(image_id)
        self.troubles.pop(image_id, None)

    def _uncount(self, image_id: str) -> None:
        known = self.troubles.get(image_id)
        if known is not None:
            owners = self._failed_of[known.store]
            owners[known.owner] -= 1
            if not owners[known.owner]:
                del owners[known.owner]

    def statistics(self) -> RecordStatistics:
        """Return the counts. O(1) in the number of scrubbed images."""
        return RecordStatistics(
            scrubbed=self.scrubbed,
            finished=dict(self.finished),
            missed_by_bus=self.missed_by_bus,
            leases_lost=self.leases_lost,
            retries=self.retries,
            outcomes=dict(self.outcomes),
            bytes_reclaimed=dict(self.bytes_reclaimed),
            left_alone=dict(self.left_alone),
            late_seconds=tuple(self.late_seconds),
            lateness=self.lateness.statistics(),
            queued=self.queued.statistics(),
            worked=self.worked.statistics(),
            damaged=len(self.damaged),
        )

    def trouble_statistics(self, shown: int) -> TroubleStatistics:
        """Count the failed images. O(failed).

        :param shown: how many images of each kind to name at most.
        """
        troubles = self.troubles
        parked = (item for item in troubles.items() if item[1].parked)
        in_use = (item for item in troubles.items() if item[1].in_use)
        # Counted by plain values: a million hashes of a dataclass or an enumeration take seconds.
        kinds = Counter((t.store, t.verdict.reason, t.parked, t.in_use) for t in troubles.values())
        groups = {
            TroubleGroup(store, reason, _state(parked=is_parked, in_use=is_in_use)): number
            for (store, reason, is_parked, is_in_use), number in kinds.most_common()
        }
        return TroubleStatistics(
            groups=groups,
            parked=dict(nlargest(shown, parked, key=_tries)),
            in_use=dict(nlargest(shown, in_use, key=_tries)),
            damaged=dict(islice(self.damaged.items(), shown)),
        )

    def images_in_trouble(self) -> ImagesInTrouble:
        """Return a copy of all failed and damaged images."""
        return ImagesInTrouble(dict(self.troubles), dict(self.damaged))


@lru_cache(maxsize=1024)
def _the_same(trouble: Trouble) -> Trouble:
    """Return an equal trouble, if one was recorded lately; a million of them are few kinds."""
    return trouble


def _state(*, parked: bool, in_use: bool) -> TroubleState:
    if parked:
        return TroubleState.PARKED
    return TroubleState.IN_USE if in_use else TroubleState.RETRYING


def _tries(item: tuple[str, Trouble]) -> int:
    return item[1].tries
