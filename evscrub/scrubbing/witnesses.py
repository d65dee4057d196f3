# SPDX-License-Identifier: Apache-2.0
"""Looks for live images in stores, to prove that data reported missing is gone.

A proof must be newer than the answer that it proves, because a file system may have been unmounted
between the two. It must not rest on a young image while an older one is absent: after a lazy
unmount, the mount point has what was uploaded since, and nothing else. Concurrent callers share the
next proof: however many images are missing, a part of a store is asked at most twice a second.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

import anyio
import anyio.to_thread
from oslo_log import log as logging

from evscrub.domain.evidence import Owner
from evscrub.domain.proof import Presence, Proof, ProofResult
from evscrub.registry.gateway import RegistryAwayError
from evscrub.scrubbing.context import Context
from evscrub.stores.backends import Target

LOG = logging.getLogger(__name__)

#: An absent witness is looked for again after this time: when Glance itself deletes an image, the
#: data is removed before the row.
_AGAIN_SECONDS = 2.0
#: Minimum interval between the starts of two proofs of one part of a store.
_PAUSE_SECONDS = 0.5
#: How long the result "no live image" of a part of a store is reused.
_NO_WITNESS_SECONDS = 5.0
#: A witness that the store does not answer for in this time says nothing.
_ANSWER_SECONDS = 60.0
#: Witnesses that one store is asked for at a time. While as many calls hang, it is not asked, for
#: each keeps its thread.
_MOST_CALLS = 4
#: Parts of stores whose last proof is cached.
_PARTS = 1024


class Witness(NamedTuple):
    """A location of a live image, whose data the store must have.

    :param row_id: id of the location's row; greater ids have younger data, but for a few.
    :param size_bytes: size in the registry, more than 0.
    :param owner: owner of the image.
    """

    image_id: str
    row_id: int
    target: Target
    size_bytes: int
    owner: Owner = None


class Asks(Protocol):
    """The part of the stores that finds data."""

    def look_for(self, target: Target, size_bytes: int) -> Presence:
        """Return whether the store has the data, with this size; blocks, raises nothing."""


class Witnesses:
    """Proves parts of stores, one proof of each part at a time.

    :param find: returns a few witnesses, the oldest first, given a store and a part of it; blocks.
    """

    def __init__(
        self,
        find: Callable[[str, str], list[Witness]],
        stores: Asks,
        context: Context,
    ) -> None:
        self._proofs: Counter[tuple[str, ProofResult]] = Counter()
        self._find = find
        self._stores = stores
        self._context = context
        self._asking: dict[tuple[str, str], anyio.Lock] = {}
        self._calls: dict[str, anyio.CapacityLimiter] = {}
        #: Calls that took too long, by store; each is set when it ends.
        self._hanging: dict[str, list[threading.Event]] = {}
        #: Start of the last proof, seconds since boot, and the proof.
        self._last: dict[tuple[str, str], tuple[float, Proof]] = {}

    def proofs(self) -> Mapping[tuple[str, ProofResult], int]:
        """Return the number of proofs since the agent started, by store and result."""
        return dict(self._proofs)

    async def prove(self, store: str, part: str, since: float) -> Proof:
        """Prove a part of a store, or share a proof that is recent enough.

        :param since: earliest acceptable start of the proof, seconds since boot.
        :returns: :attr:`ProofResult.UNKNOWN` if the registry or the store cannot tell.
        """
        key = store, part
        if len(self._asking) >= _PARTS:
            idle = [known for known, lock in self._asking.items() if not lock.locked()]
            for forgotten in idle:
                del self._asking[forgotten]
                self._last.pop(forgotten, None)
        async with self._asking.setdefault(key, anyio.Lock()):
            if (last := self._last.get(key)) is not None:
                if self._holds(*last, since):
                    return last[1]
                await anyio.sleep(max(0.0, last[0] + _PAUSE_SECONDS - self._context.clock.boot()))
            began = self._context.clock.boot()
            try:
                proof = await self._ask(store, part)
            except RegistryAwayError:
                proof = Proof(ProofResult.UNKNOWN)
            except Exception:
                LOG.exception("Cannot look for a live image of store %s", store)
                proof = Proof(ProofResult.UNKNOWN)
            self._proofs[store, proof.result] += 1
            self._last[key] = began, proof
            return proof

    def _holds(self, began: float, proof: Proof, since: float) -> bool:
        """Return whether a proof that began at `began` is still usable."""
        if proof.result is ProofResult.NO_WITNESS:
            since = self._context.clock.boot() - _NO_WITNESS_SECONDS
        return began >= since

    async def _ask(self, store: str, part: str) -> Proof:
        """Look for live images, the oldest first, and again if one is absent.

        Only one that is absent twice, and live both times, is evidence against the store.
        """
        before: set[str] = set()
        for again in (False, True):
            if again:
                await anyio.sleep(_AGAIN_SECONDS)
            witnesses = await self._context.calls.call(self._find, store, part)
            if not witnesses:
                return Proof(ProofResult.NO_WITNESS)
            absent, there = await self._look_for_any(store, witnesses)
            if there is None and len(absent) < len(witnesses):
                return Proof(ProofResult.UNKNOWN)
            if there is not None and not absent:
                return Proof(ProofResult.RIGHT)
            for witness in absent:
                if witness.image_id in before:
                    evidence = witness.image_id, witness.size_bytes, frozenset(map(_owner, absent))
                    if there is None:
                        return Proof(ProofResult.WRONG, *evidence)
                    return Proof(ProofResult.RIGHT_FOR_YOUNGER, *evidence, there.row_id)
            before = {witness.image_id for witness in absent}
        return Proof(ProofResult.UNKNOWN)

    async def _look_for_any(
        self, store: str, witnesses: Iterable[Witness]
    ) -> tuple[list[Witness], Witness | None]:
        """Return the first witness that a store has, after the absent ones before it."""
        absent: list[Witness] = []
        for witness in witnesses:
            presence = await self._look_for(store, witness)
            if presence is Presence.THERE:
                return absent, witness
            if presence is Presence.ABSENT:
                absent.append(witness)
        return absent, None

    async def _look_for(self, store: str, witness: Witness) -> Presence:
        """Return whether the store has a witness; UNKNOWN if it hangs."""
        async with self._calls.setdefault(store, anyio.CapacityLimiter(_MOST_CALLS)):
            hanging = [ended for ended in self._hanging.get(store, ()) if not ended.is_set()]
            self._hanging[store] = hanging
            if len(hanging) >= _MOST_CALLS:
                return Presence.UNKNOWN
            begun, ended = threading.Event(), threading.Event()

            def look() -> Presence:
                begun.set()
                try:
                    return self._stores.look_for(witness.target, witness.size_bytes)
                finally:
                    ended.set()

            with anyio.move_on_after(_ANSWER_SECONDS):
                return await anyio.to_thread.run_sync(
                    look, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
                )
            if begun.is_set():
                self._hanging[store].append(ended)
            return Presence.UNKNOWN


def _owner(witness: Witness) -> Owner:
    return witness.owner
