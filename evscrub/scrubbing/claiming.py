# SPDX-License-Identifier: Apache-2.0
"""The claims of a lane that are in progress, and how many images they bring to it."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from evscrub.domain.evidence import Owner
from evscrub.queueing.delay_queue import Taken
from evscrub.queueing.turns import OwnerKey, owner_key

_LEAST_YIELD = 0.01
#: Longest claim that counts, in seconds: a host that was suspended says nothing about the database.
_MOST_SECONDS = 5.0
#: How long images may wait for the end of a claim.
_GATHER_SECONDS = 1.0


class Again(NamedTuple):
    """Queue lane of a store's images that failed before; the others make better probes."""

    store: str


class Claiming:
    """The claims of a lane that are in progress.

    :param store: the lane's name.
    """

    def __init__(self, store: str) -> None:
        self.count = 0
        #: Moving average of the share of images of claims that the lane then works on; low if other
        #: agents claim the same images, and if many are in no usable store.
        self.yielded = 1.0
        #: Moving average of how long claims take, in seconds, at most 5.
        self.seconds = 0.0
        self._store = store
        self._images: Counter[OwnerKey] = Counter()  # of these claims
        self._ordered = 0
        self._begun_at = 0.0

    @property
    def images(self) -> int:
        """Number of images of these claims."""
        return self._images.total()

    def images_of(self, owner: Owner) -> int:
        """Return the number of an owner's images of these claims."""
        return self._images[owner_key(owner)]

    def begins(self, taken: Sequence[Taken], now: float) -> None:
        """Count the start of a claim of these images, at `now` seconds since boot."""
        self.count += 1
        self._begun_at = now
        self._images.update(image.owner for image in taken)

    def ends(self, taken: Sequence[Taken], got: int) -> None:
        """Count the end of a claim of these images.

        :param taken: the images passed to :meth:`begins`.
        :param got: how many of them were claimed and wait for the lane now.
        """
        self.count -= 1
        self._images -= Counter(image.owner for image in taken)
        self.yielded = max(_LEAST_YIELD, (self.yielded + got / len(taken)) / 2)

    def gather_seconds(self, now: float) -> float:
        """Return how long to wait for more images before a claim of few, seconds; 0 to begin it.

        A claim of few images costs nearly as much as one of many, so those that become ready during
        a claim share the next one; not for long, because one connection may hang.
        """
        return max(0.0, self._begun_at + _GATHER_SECONDS - now) if self.count else 0.0

    def took(self, seconds: float) -> None:
        """Note how long the registry took for a claim."""
        self.seconds = (self.seconds + min(seconds, _MOST_SECONDS)) / 2

    def order(self, *, is_closed: bool) -> tuple[tuple[str | Again, bool], ...]:
        """Return the queue lanes to claim from, in order of preference.

        Images that failed before come second, but first in every fourth claim to avoid starvation.
        While the breaker is not closed they always come second, because they make poor probes.
        Images of owners whose own breaker is not closed make poorer ones and come last, but in
        every fourth claim like the others.

        :param is_closed: whether the lane's breaker is closed.
        :returns: each lane with whether owners whose breaker is not closed may be probed.
        """
        first, again = self._store, Again(self._store)
        self._ordered += 1
        is_fourth = self._ordered % 4 == 0
        all_owners = ((first, True), (again, True))
        if is_closed:
            return all_owners[::-1] if is_fourth else all_owners
        return all_owners if is_fourth else ((first, False), (again, False), *all_owners)
