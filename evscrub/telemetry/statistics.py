# SPDX-License-Identifier: Apache-2.0
"""Record what an agent did: counts, and the images that failed or are damaged."""

from collections import Counter, deque
from dataclasses import dataclass, field

from evscrub.domain.verdict import Verdict
from evscrub.telemetry.histogram import Spread


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
    lateness: Spread = field(default_factory=Spread)
    """From when images were due to when their last location was gone."""
    queued: Spread = field(default_factory=Spread)
    """From when images were due, first or again, to when their first delete began."""
    worked: Spread = field(default_factory=Spread)
    """From when images' first delete began to when they were settled."""
    troubles: dict[str, Trouble] = field(default_factory=dict)
    """By image id."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Reasons by image id."""
    _damaged_lately: set[str] = field(default_factory=set)

    def found_damaged(self, image_id: str, reason: str) -> bool:
        """Record a damaged image; return whether that is new."""
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
        self.troubles.pop(image_id, None)
        self.damaged.pop(image_id, None)
