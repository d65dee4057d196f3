# SPDX-License-Identifier: Apache-2.0
"""Count failures as evidence against a store or against one owner. Pure.

Evidence is counted by image and by owner, so that neither one image that fails repeatedly nor one
owner with many images stops a store for all owners.
"""

from enum import Enum
from typing import NamedTuple

Owner = str | None

#: Most owners that a tally counts. Images of further owners are not counted.
_OWNERS = 1000


class Scope(Enum):
    """What evidence is against."""

    STORE = "store"
    OWNER = "owner"


class Origin(NamedTuple):
    """The image and the part of the store that an answer is about.

    :param owner: owner of the image, as the registry has it.
    :param endpoint: part of the store, see :func:`evscrub.domain.object_identity.endpoint`.
    :param first: whether the image has not failed before, on this agent or another.
    """

    owner: Owner
    endpoint: str
    first: bool = True


class Tally:
    """Counts consecutive images with the same answer, by owner.

    :param limit: number of images that is evidence against the store, at least 1.
    :param share: most images of one owner that count towards the limit, from 1 to `limit`.
    """

    __slots__ = ("_by_owner", "limit", "share", "total", "weight")

    def __init__(self, limit: int, share: int) -> None:
        self.limit = limit
        self.share = share
        self.total = 0
        self.weight = 0  #: like `total`, with at most `share` images of each owner
        self._by_owner: dict[Owner, int] = {}

    @property
    def is_full(self) -> bool:
        """Whether the images are evidence against the store."""
        return self.weight >= self.limit

    def of(self, owner: Owner) -> int:
        """Return the number of images of an owner."""
        return self._by_owner.get(owner, 0)

    def add(self, owner: Owner) -> None:
        """Count an image of an owner."""
        count = self._by_owner.get(owner, 0)
        if not count and len(self._by_owner) >= _OWNERS:
            return
        self._by_owner[owner] = count + 1
        self.total += 1
        if count < self.share:
            self.weight += 1

    def clear(self) -> None:
        """Reset the counts, because an image got another answer."""
        if self.total:
            self.total = self.weight = 0
            self._by_owner.clear()
