# SPDX-License-Identifier: Apache-2.0
"""Sum up portions by store, owner and reason, in bounded memory. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from evscrub.single_pass.portions import Fate, Portion

#: Sums that are kept apart. Further owners are summed up as others, and then, because rows may name
#: any store and reasons may name anything, all that is left by fate alone.
MAX_GROUPS = 10_000
OTHERS = "(others)"


@dataclass(slots=True)
class Sum:
    """Portions that have store, owner, fate and reason in common.

    :param like: one of them, with the earliest due time of all.
    """

    like: Portion
    images: int = 0
    size_bytes: int = 0


class Account:
    """Sums of portions."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str | None, Fate, str], Sum] = {}

    def add(self, portion: Portion) -> None:
        """Add a portion."""
        if self._is_too_much(portion, MAX_GROUPS):
            portion = replace(portion, owner=OTHERS)
            if self._is_too_much(portion, 2 * MAX_GROUPS):
                portion = replace(portion, store=OTHERS, reason=OTHERS)
        key = _key(portion)
        known = self._sums.setdefault(key, Sum(portion))
        known.images += 1
        known.size_bytes += portion.size_bytes
        earliest = known.like.due_at
        if portion.due_at is not None and (earliest is None or portion.due_at < earliest):
            known.like = portion

    def _is_too_much(self, portion: Portion, most: int) -> bool:
        return _key(portion) not in self._sums and len(self._sums) >= most

    def __iter__(self) -> Iterator[Sum]:
        """Iterate over the sums: by fate, then by store and owner, the most images first."""
        fates = list(Fate)
        yield from sorted(
            self._sums.values(),
            key=lambda one: (
                fates.index(one.like.fate),
                one.like.store,
                one.like.owner or "",
                -one.images,
                one.like.reason,
            ),
        )

    def images(self, *fates: Fate) -> int:
        """Return the number of portions with one of these fates."""
        return sum(one.images for one in self._sums.values() if one.like.fate in fates)

    def size_bytes(self, *fates: Fate) -> int:
        """Return the bytes of the portions with one of these fates."""
        return sum(one.size_bytes for one in self._sums.values() if one.like.fate in fates)

    def by_reason(self, fate: Fate) -> dict[str, tuple[int, int]]:
        """Return numbers of images and bytes by reason, the most images first."""
        found: dict[str, tuple[int, int]] = {}
        for one in self._sums.values():
            if one.like.fate is fate:
                images, size_bytes = found.get(one.like.reason, (0, 0))
                found[one.like.reason] = images + one.images, size_bytes + one.size_bytes
        return dict(sorted(found.items(), key=lambda item: (-item[1][0], item[0])))


def _key(portion: Portion) -> tuple[str, str | None, Fate, str]:
    return portion.store, portion.owner, portion.fate, portion.reason
