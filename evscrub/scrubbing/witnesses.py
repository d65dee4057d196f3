# SPDX-License-Identifier: Apache-2.0
"""Asks stores for live images, to learn whether what a store does not have is gone.

No proof counts that is older than what it is to prove: a file system may have been unmounted
since. So those who wait for one share the next, and however many images are missing, a part of a
store gets two questions a second at most.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import anyio
import anyio.to_thread
from oslo_log import log as logging

from evscrub.domain.clock import Clock
from evscrub.domain.evidence import Owner
from evscrub.domain.proof import Presence, Proof, ProofResult
from evscrub.registry.calls import RegistryAwayError, RegistryCalls
from evscrub.stores.backends import Target

LOG = logging.getLogger(__name__)

#: A witness that is absent is looked for again after so long: where Glance deletes an image itself,
#: its data goes before its row.
_AGAIN_SECONDS = 2.0
#: Questions for one part of a store begin no closer together.
_PAUSE_SECONDS = 0.5
#: A part of a store without a live image is not asked for one again before so long.
_NO_WITNESS_SECONDS = 5.0
#: Parts of stores whose last proof is kept.
_PARTS = 1024


class Witness(NamedTuple):
    """A live image's location, which its store must have.

    :param size_bytes: as the registry has it, more than 0.
    :param owner: of the image.
    """

    image_id: str
    target: Target
    size_bytes: int
    owner: Owner = None


class Asks(Protocol):
    """What can be asked about a live image."""

    def look_for(self, target: Target, size_bytes: int) -> Presence:
        """Say whether a store has a location's data; blocks, raises nothing."""


@dataclass(frozen=True, slots=True)
class WitnessStatistics:
    """Proofs since the agent started.

    :param proofs: how many there were, by store and result.
    """

    proofs: Mapping[tuple[str, ProofResult], int]


class Witnesses:
    """Proves parts of stores. One question is under way for each, whoever waits for its answer.

    :param find: returns a few witnesses in a part of a store, by the store and the part; blocks.
    """

    def __init__(
        self,
        find: Callable[[str, str], list[Witness]],
        stores: Asks,
        calls: RegistryCalls,
        clock: Clock,
    ) -> None:
        self._proofs: Counter[tuple[str, ProofResult]] = Counter()
        self._find = find
        self._stores = stores
        self._calls = calls
        self._clock = clock
        self._asking: dict[tuple[str, str], anyio.Lock] = {}
        #: When the last question began, seconds since boot, and its answer.
        self._last: dict[tuple[str, str], tuple[float, Proof]] = {}

    def statistics(self) -> WitnessStatistics:
        """Return the numbers of proofs."""
        return WitnessStatistics(dict(self._proofs))

    async def prove(self, store: str, part: str, since: float) -> Proof:
        """Say whether a part of a store is the right one.

        :param since: no question counts that began before, seconds since boot.
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
                await anyio.sleep(max(0.0, last[0] + _PAUSE_SECONDS - self._clock.boot()))
            began = self._clock.boot()
            try:
                proof = await self._ask(store, part)
            except RegistryAwayError:
                proof = Proof(ProofResult.UNKNOWN)
            except Exception:
                LOG.exception("No live image of store %s can be looked for", store)
                proof = Proof(ProofResult.UNKNOWN)
            self._proofs[store, proof.result] += 1
            self._last[key] = began, proof
            return proof

    def _holds(self, began: float, proof: Proof, since: float) -> bool:
        """Whether the answer to a question that began then still counts."""
        if proof.result is ProofResult.NO_WITNESS:
            since = self._clock.boot() - _NO_WITNESS_SECONDS
        return began >= since

    async def _ask(self, store: str, part: str) -> Proof:
        """Look for live images; what is absent twice, and live both times, is a proof."""
        absent: set[str] = set()
        for again in (False, True):
            if again:
                await anyio.sleep(_AGAIN_SECONDS)
            witnesses = await self._calls.call(self._find, store, part)
            if not witnesses:
                return Proof(ProofResult.NO_WITNESS)
            found = []
            for witness in witnesses:
                presence = await anyio.to_thread.run_sync(
                    self._stores.look_for,
                    witness.target,
                    witness.size_bytes,
                    abandon_on_cancel=True,
                )
                if presence is Presence.THERE:
                    return Proof(ProofResult.RIGHT)
                found.append(presence)
            if Presence.UNKNOWN in found:
                return Proof(ProofResult.UNKNOWN)
            for witness in witnesses:
                if witness.image_id in absent:
                    owners = frozenset(one.owner for one in witnesses)
                    return Proof(ProofResult.WRONG, witness.image_id, witness.size_bytes, owners)
            absent.update(witness.image_id for witness in witnesses)
        return Proof(ProofResult.UNKNOWN)
