# SPDX-License-Identifier: Apache-2.0
"""Judge whether data that a store does not have is gone, or the store is wrong. Pure.

An unmounted directory, a bucket with another name or the pool of another cluster lack the data too.
A witness, which is an active image in the same part of the store with a known size, proves the
store: if the witness is there, the store is right and missing data is gone. If an older witness is
absent, that holds only for data that is younger than the witness: after a lazy unmount, a mount
point has what was uploaded since. Without a witness, missing images are counted.
"""

from collections import Counter
from dataclasses import replace
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

#: How long data must be missing from a store without a witness before it is taken as gone.
STILL_MISSING_SECONDS = 3.0
#: How long missing data at most waits for the first answers about other images.
OTHERS_SECONDS = 60.0
#: Most parts of a store that are tracked, and most owners and images in each part.
_PARTS = 256
_OWNERS = 1000
_IMAGES = 10_000
#: Most images remembered as missing from a part of the store before other data was found there.
_PROVEN = 10_000


class Presence(Enum):
    """Answer of a store about an image that must be there."""

    THERE = "there"
    ABSENT = "absent"  #: or it has another size
    UNKNOWN = "unknown"  #: the request failed, or its answer does not distinguish failures


class ProofResult(Enum):
    """What witnesses prove about their part of a store."""

    RIGHT = "right"
    #: A witness is there, and an older one is absent.
    RIGHT_FOR_YOUNGER = "right_for_younger"
    WRONG = "wrong"
    UNKNOWN = "unknown"
    NO_WITNESS = "no_witness"  #: there is no active image in it


class Proof(NamedTuple):
    """What witnesses prove, and an absent witness if one is.

    :param image_id: id of an absent witness.
    :param size_bytes: its size.
    :param owners: owners of the absent witnesses.
    :param row_id: id of the location of the witness that is there: a store that is right for
        younger data is right for locations with greater ids.
    """

    result: ProofResult
    image_id: str = ""
    size_bytes: int = 0
    owners: frozenset[Owner] = frozenset()
    row_id: int = 0


class Missing:
    """Judges images whose data a store does not have.

    Without a witness the data of an image is taken as gone if other data in the same part of the
    store was found after it was missing, or if it stays missing while fewer images than the limit
    have been missing since data was last found there, or may turn out to be. If the store is right
    only for younger data, the same holds for older data, but that other data is found says nothing.

    :param limit: number of missing images in a row, over any time, that shows that the store is
        wrong; 0 takes any missing data as gone.
    :param trusts_few: whether few missing images are taken as gone. Not in a process that ends
        soon: each would count from zero.
    """

    def __init__(self, limit: int, *, trusts_few: bool = True) -> None:
        self.limit = limit
        self._trusts_few = trusts_few
        #: Whether there was a witness the last time; None before the first judgement.
        self.is_provable: bool | None = None
        #: By part, and whether an old witness is absent from it: then data that was found later,
        #: which may be younger, proves nothing.
        self._parts: dict[tuple[str, bool], _Part] = {}
        #: Pairs of part and image that was missing before other data of the part was found.
        self._proven: set[tuple[str, str]] = set()

    def judge(
        self,
        proof: Proof,
        part: str,
        owner: Owner,
        image_id: str,
        now: float,
        *,
        row_id: int,
        unjudged: int = 0,
    ) -> Verdict:
        """Return the verdict on an image whose data a part of the store does not have.

        :param proof: what witnesses prove about that part.
        :param row_id: id of the location whose data is missing.
        :param now: seconds, of a clock that never goes back.
        :param unjudged: number of due images for which no answer was judged yet; if the store is
            slow, its missing images take long to count.
        """
        if not self.limit:
            return NOT_FOUND
        self.is_provable = proof.result is not ProofResult.NO_WITNESS
        match proof.result:
            case ProofResult.RIGHT:
                self._parts.pop((part, True), None)
                return NOT_FOUND
            case ProofResult.RIGHT_FOR_YOUNGER if row_id > proof.row_id:
                self._forget(part, owner, image_id)
                return NOT_FOUND
            case ProofResult.WRONG:
                what = f"image {proof.image_id} is active, and its {proof.size_bytes} bytes"
                # An owner may add a wrong location to an own image, so only a witness of another
                # owner is evidence against the store.
                reason = WRONG_STORE if proof.owners - {owner} else WRONG_FOR_ONE
                return Verdict(Outcome.STORE_TROUBLE, reason, hint=f"{what} are not there")
            case ProofResult.UNKNOWN:
                return NO_PROOF
        is_doubtful = proof.result is ProofResult.RIGHT_FOR_YOUNGER
        if (part, image_id) in self._proven and not is_doubtful:
            self._proven.discard((part, image_id))
            return NOT_FOUND
        key = part, is_doubtful
        if key not in self._parts and len(self._parts) >= _PARTS:
            del self._parts[next(iter(self._parts))]
        known = self._parts.setdefault(key, _Part(self.limit, now, trusts_few=self._trusts_few))
        verdict = known.judge(owner, image_id, now, unjudged)
        if verdict.outcome is Outcome.STORE_TROUBLE:
            other = f"neither is image {proof.image_id}, which is active"
            lack = other if is_doubtful else "it has no active image to compare with"
            return replace(verdict, hint=f"{self.limit} images are not there, and {lack}")
        return verdict

    def found(self, part: str, owner: Owner, image_id: str, began: float) -> None:
        """Record that a part of the store had an image's data.

        :param began: when the request started, seconds. The file system may have been unmounted
            since, so the answer proves nothing about data that was missing after that.
        """
        self._forget(part, owner, image_id)
        key = part, False
        if key in self._parts:
            if len(self._proven) >= _PROVEN:
                self._proven.clear()
            known = self._parts[key]
            self._proven.update((part, image_id) for image_id in known.take_missing_by(began))
            if known.is_empty:
                del self._parts[key]

    def _forget(self, part: str, owner: Owner, image_id: str) -> None:
        """Do not count an image as missing any more in a part that is right for younger data."""
        if (part, True) in self._parts:
            self._parts[part, True].forget(owner, image_id)

    def change(self, limit: int) -> None:
        """Apply a limit; a new one counts from zero."""
        if limit != self.limit:
            self.limit = limit
            self.clear()

    def clear(self) -> None:
        """Forget all missing images, for example because an operator repaired the store."""
        self._parts.clear()
        self._proven.clear()


class _Part:
    """Images missing from a part of a store since data was last found there.

    :param began: when the first of them was missing, seconds.
    :param trusts_few: see :class:`Missing`.
    """

    def __init__(self, limit: int, began: float, *, trusts_few: bool) -> None:
        self._limit = limit
        self._trusts_few = trusts_few
        self._began = began
        #: Time when each image was first missing, by owner, without those taken as gone.
        self._since: dict[Owner, dict[str, float]] = {}
        #: Number of images taken as gone, by owner. They count too, because at a slow rate few are
        #: missing at a time.
        self._gone: Counter[Owner] = Counter()
        self._gone_at = began
        self._count = 0

    @property
    def is_empty(self) -> bool:
        """Whether no image is counted."""
        return not self._since and not self._gone

    def take_missing_by(self, time: float) -> list[str]:
        """Remove and return the images missing by `time`; forget those taken as gone by then."""
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

    def forget(self, owner: Owner, image_id: str) -> None:
        """Do not count an image any more."""
        if self._since.get(owner, {}).pop(image_id, None) is not None:
            self._count -= 1

    def judge(self, owner: Owner, image_id: str, now: float, unjudged: int) -> Verdict:
        """Judge an image by how many images are missing or may be, and for how long."""
        if owner not in self._since and len(self._since) >= _OWNERS:
            return UNPROVEN
        own = self._since.setdefault(owner, {})
        if image_id not in own and self._count < _IMAGES:
            own[image_id] = now
            self._count += 1
        if now - self._began >= STILL_MISSING_SECONDS and self._is_too_much():
            return Verdict(Outcome.STORE_TROUBLE, TOO_MANY_MISSING)
        since = own.get(image_id, now)
        if now - since < STILL_MISSING_SECONDS:
            return UNPROVEN
        if self._missing_of(owner) >= self._limit:
            return Verdict(Outcome.STORE_TROUBLE, TOO_MANY_OF_ONE)
        possible = self._count + self._gone.total() + unjudged
        if (possible >= self._limit and now - since < OTHERS_SECONDS) or not self._trusts_few:
            return UNPROVEN
        del own[image_id]
        self._count -= 1
        self._gone[owner] += 1
        self._gone_at = now
        return NOT_FOUND

    def _is_too_much(self) -> bool:
        # The images of one owner count for half of the limit at most, so that a single owner cannot
        # pause the store.
        share = ceil(self._limit / 2)
        owners = self._since.keys() | self._gone.keys()
        return sum(min(self._missing_of(owner), share) for owner in owners) >= self._limit

    def _missing_of(self, owner: Owner) -> int:
        return len(self._since.get(owner, ())) + self._gone[owner]
