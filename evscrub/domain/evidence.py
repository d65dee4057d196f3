# SPDX-License-Identifier: Apache-2.0
"""What an answer of a store is evidence of: the store, or only the one whose image it was.

Pure. Evidence is counted by image and by owner, so that neither one image that fails again and
again nor one owner with many images decides for everybody.
"""

from enum import Enum
from typing import NamedTuple

Owner = str | None

#: Owners that a tally keeps apart; those beyond are counted as one.
_OWNERS = 1000


class Scope(Enum):
    """Whom evidence concerns."""

    STORE = "store"
    OWNER = "owner"


class Origin(NamedTuple):
    """Where an answer of a store comes from.

    :param owner: of the image, as the registry has it.
    :param endpoint: the part of the store that was asked, see
        :func:`evscrub.domain.object_identity.endpoint`.
    :param first: whether the image had not failed before, here or under another agent.
    """

    owner: Owner
    endpoint: str
    first: bool = True


class Tally:
    """Images that got the same answer in a row, by owner.

    :param limit: how many of them are evidence against the store, at least 1.
    :param share: the most that one owner's count for, from 1 to `limit`.
    """

    __slots__ = ("_by_owner", "limit", "share", "total", "weight")

    def __init__(self, limit: int, share: int) -> None:
        self.limit = limit
        self.share = share
        self.total = 0
        self.weight = 0  #: as `total`, but of each owner no more than `share`
        self._by_owner: dict[Owner, int] = {}

    @property
    def is_full(self) -> bool:
        """Whether the store itself is to blame."""
        return self.weight >= self.limit

    def of(self, owner: Owner) -> int:
        """How many were this owner's."""
        return self._by_owner.get(owner, 0)

    def add(self, owner: Owner) -> None:
        """Count an image."""
        count = self._by_owner.get(owner, 0)
        if not count and len(self._by_owner) >= _OWNERS:
            return
        self._by_owner[owner] = count + 1
        self.total += 1
        if count < self.share:
            self.weight += 1

    def clear(self) -> None:
        """Begin again: an image got another answer."""
        if self.total:
            self.total = self.weight = 0
            self._by_owner.clear()
