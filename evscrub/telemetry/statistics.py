# SPDX-License-Identifier: Apache-2.0
"""What happened so far: counts, and which images are in trouble or damaged."""

from collections import Counter, deque
from dataclasses import dataclass, field

from evscrub.domain.verdict import Verdict
from evscrub.telemetry.histogram import Spread


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """An image that nothing is left to do about.

    :param data_went: whether a store had its data, or has it no more; it stays where a live image
        shares it, or the store is not Glance's.
    """

    image_id: str
    owner: str | None
    size_bytes: int
    late_seconds: float  #: from when it was due to when its last location was gone
    data_went: bool


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an image could not be scrubbed so far.

    :param parked: only an operator can help; it is looked at rarely.
    """

    verdict: Verdict
    tries: int
    parked: bool
    store: str
    owner: str | None


@dataclass(slots=True)
class Record:
    """The record of one agent since it started."""

    scrubbed: int = 0  #: images whose data is gone
    finished: Counter[str] = field(default_factory=Counter)
    """Images that were finished without a delete of data, by reason."""
    #: Images found by a sweep that the bus should have announced to some agent.
    missed_by_bus: int = 0
    leases_lost: int = 0
    retries: int = 0  #: images that are to be tried again, each time
    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Locations by store, outcome and reason, counted when their claim is settled."""
    bytes_reclaimed: Counter[str] = field(default_factory=Counter)
    """By store, counted when the claim is settled."""
    left_alone: Counter[str] = field(default_factory=Counter)
    """Images that were looked at and not claimed, by reason."""
    late_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))
    lateness: Spread = field(default_factory=Spread)
    """From when images were due to when their last location was gone."""
    queued: Spread = field(default_factory=Spread)
    """From when images were due, at first or again, to when their first delete began."""
    worked: Spread = field(default_factory=Spread)
    """From when images' first delete began to when their end was in the registry."""
    troubles: dict[str, Trouble] = field(default_factory=dict)
    """By image id."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Reasons by image id."""
    _damaged_lately: set[str] = field(default_factory=set)

    def found_damaged(self, image_id: str, reason: str) -> bool:
        """An image is damaged; returns whether that is new."""
        new = image_id not in self.damaged
        self.damaged[image_id] = reason
        self._damaged_lately.add(image_id)
        return new

    def sweep_begins(self) -> None:
        """A full sweep is to find anew what is damaged: what the last one did not is forgotten."""
        self.damaged = {
            name: self.damaged[name] for name in self._damaged_lately & set(self.damaged)
        }
        self._damaged_lately.clear()

    def forget(self, image_id: str) -> None:
        """An image is as it should be."""
        self.troubles.pop(image_id, None)
        self.damaged.pop(image_id, None)
