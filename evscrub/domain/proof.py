# SPDX-License-Identifier: Apache-2.0
"""What it means that a store does not have an image's data. Pure.

An unmounted directory, a bucket of another name and another cluster's pool do not have it either. A
live image of the same part of the store, whose size the registry knows, tells: where it is there,
the store is the right one. Where there is no such image, images are counted.
"""

from collections import Counter
from enum import Enum
from math import ceil
from typing import NamedTuple

from evscrub.domain.evidence import Owner
from evscrub.domain.verdict import (
    NO_PROOF,
    NOT_FOUND,
    TOO_MANY_MISSING,
    TOO_MANY_OF_ONE,
    UNPROVEN,
    WRONG_FOR_ONE,
    WRONG_STORE,
    Outcome,
    Verdict,
)

#: How long an image must stay missing, where nothing can prove its store, to be taken for gone.
STILL_MISSING_SECONDS = 3.0
#: Parts of a store, and owners and images in each, that are counted.
_PARTS = 256
_OWNERS = 1000
_IMAGES = 10_000
#: Images that are known to have been missing from a part of the store that was right.
_PROVEN = 10_000


class Presence(Enum):
    """What a store says of an image that must be there."""

    THERE = "there"
    ABSENT = "absent"  #: or of another size
    UNKNOWN = "unknown"  #: it failed, or it gives this answer whatever fails


class ProofResult(Enum):
    """What live images tell of the part of a store that they are in."""

    RIGHT = "right"
    WRONG = "wrong"
    UNKNOWN = "unknown"
    NO_WITNESS = "no_witness"  #: there is no live image in it


class Proof(NamedTuple):
    """What live images tell, and of a wrong store one that is absent.

    :param image_id: empty unless the store is wrong.
    :param owners: of the images that are absent.
    """

    result: ProofResult
    image_id: str = ""
    size_bytes: int = 0
    owners: frozenset[Owner] = frozenset()


class Missing:
    """Judges a store that says that it does not have images' data.

    Where nothing can prove it, an image is taken for gone when data in the same part of the store
    was found after it was missing, or when it stays missing and few others are, or were since data
    was found there.

    :param limit: images missing in a row, however slowly they are asked for, that mean that the
        store is not the right one; 0 takes any number for gone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: Whether there was a live image to ask for, the last time; None before.
        self.is_provable: bool | None = None
        self._parts: dict[str, _Part] = {}
        #: Images, by part, that were missing before other data of the part was found.
        self._proven: set[tuple[str, str]] = set()

    def judge(self, proof: Proof, part: str, owner: Owner, image_id: str, now: float) -> Verdict:
        """Return what it means that a part of the store does not have an image's data.

        :param proof: what live images tell of that part.
        :param now: seconds, of a clock that never goes back.
        """
        if not self.limit:
            return NOT_FOUND
        self.is_provable = proof.result is not ProofResult.NO_WITNESS
        match proof.result:
            case ProofResult.RIGHT:
                return NOT_FOUND
            case ProofResult.WRONG:
                what = f"image {proof.image_id} is active, and its {proof.size_bytes} bytes"
                # An owner can give an image of theirs a location that is not its data's, so that it
                # takes two of them to blame the store.
                reason = WRONG_STORE if proof.owners - {owner} else WRONG_FOR_ONE
                return Verdict(Outcome.STORE_TROUBLE, reason, hint=f"{what} are not there")
            case ProofResult.UNKNOWN:
                return NO_PROOF
        if (part, image_id) in self._proven:
            self._proven.discard((part, image_id))
            return NOT_FOUND
        if part not in self._parts and len(self._parts) >= _PARTS:
            del self._parts[next(iter(self._parts))]
        return self._parts.setdefault(part, _Part(self.limit, now)).judge(owner, image_id, now)

    def found(self, part: str, began: float) -> None:
        """Take in that this part of the store had an image's data.

        :param began: when that was asked, seconds. Answers are taken in late, and a file system may
            have been unmounted in between, so it proves nothing of what was missing after that.
        """
        if part in self._parts:
            if len(self._proven) >= _PROVEN:
                self._proven.clear()
            known = self._parts[part]
            self._proven.update((part, image_id) for image_id in known.take_missing_by(began))
            if known.is_empty:
                del self._parts[part]

    def clear(self) -> None:
        """Begin again, as after an operator saw to the store."""
        self._parts.clear()
        self._proven.clear()


class _Part:
    """What is missing from a part of a store since data was found there.

    :param began: when the first of it was missing.
    """

    def __init__(self, limit: int, began: float) -> None:
        self._limit = limit
        self._began = began
        #: When each image was missing first, by owner; without those that were taken for gone.
        self._since: dict[Owner, dict[str, float]] = {}
        #: How many of each owner's were taken for gone: at a slow pace few are missing at a time.
        self._gone: Counter[Owner] = Counter()
        self._gone_at = began
        self._count = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing counts."""
        return not self._since and not self._gone

    def take_missing_by(self, time: float) -> list[str]:
        """Take out the images that were missing by then; what was gone by then counts no more."""
        taken = [
            image_id
            for own in self._since.values()
            for image_id, since in own.items()
            if since <= time
        ]
        for owner, own in list(self._since.items()):
            self._since[owner] = {name: since for name, since in own.items() if since > time}
            if not self._since[owner]:
                del self._since[owner]
        self._count -= len(taken)
        if self._gone_at <= time:
            self._gone.clear()
        self._began = max(self._began, time)
        return taken

    def judge(self, owner: Owner, image_id: str, now: float) -> Verdict:
        """Judge an image by how many are missing, and for how long."""
        if owner not in self._since and len(self._since) >= _OWNERS:
            return UNPROVEN
        own = self._since.setdefault(owner, {})
        if image_id not in own and self._count < _IMAGES:
            own[image_id] = now
            self._count += 1
        if now - self._began >= STILL_MISSING_SECONDS and self._is_too_much():
            return self._too_many(TOO_MANY_MISSING)
        since = own.get(image_id, now)
        if now - since < STILL_MISSING_SECONDS:
            return UNPROVEN
        if self._missing_of(owner) >= self._limit:
            return self._too_many(TOO_MANY_OF_ONE)
        del own[image_id]
        self._count -= 1
        self._gone[owner] += 1
        self._gone_at = now
        return NOT_FOUND

    def _too_many(self, reason: str) -> Verdict:
        hint = f"{self._limit} images are not there, and it has no active image to compare with"
        return Verdict(Outcome.STORE_TROUBLE, reason, hint=hint)

    def _is_too_much(self) -> bool:
        # One owner's count for half, so that it takes two of them to blame the store.
        share = ceil(self._limit / 2)
        owners = self._since.keys() | self._gone.keys()
        return sum(min(self._missing_of(owner), share) for owner in owners) >= self._limit

    def _missing_of(self, owner: Owner) -> int:
        return len(self._since.get(owner, ())) + self._gone[owner]
