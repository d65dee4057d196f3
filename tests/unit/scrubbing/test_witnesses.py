# SPDX-License-Identifier: Apache-2.0
"""Proofs: how often a store is asked, and the results."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.domain.proof import Presence, Proof, ProofResult
from evscrub.registry.gateway import RegistryAwayError
from evscrub.scrubbing import witnesses as module
from evscrub.scrubbing.context import Context
from evscrub.scrubbing.witnesses import Witness, Witnesses
from evscrub.stores.backends import Target
from tests.unit.simulated_loop import run
from tests.unit.world import SETTINGS, simulated_threads

THERE, ABSENT, UNKNOWN = Presence
RIGHT = Proof(ProofResult.RIGHT)
WRONG = Proof(ProofResult.WRONG, "w1", 7, frozenset({None}))


def for_younger(absent: str, row_id: int) -> Proof:
    return Proof(ProofResult.RIGHT_FOR_YOUNGER, absent, 7, frozenset({None}), row_id)


class Site:
    """Live images, and what their store answers about them."""

    def __init__(self, **presences: Presence) -> None:
        self.presences = presences
        self.asked: list[str] = []
        self.looks = 0
        self.away = False
        self.meanwhile: Callable[[], None] = lambda: None

    def find(self, store: str, part: str) -> list[Witness]:
        self.looks += 1
        if self.away:
            raise RegistryAwayError
        return [
            Witness(name, number, Target(store, f"{part}/{name}", "s3"), 7)
            for number, name in enumerate(self.presences, 1)
        ]

    def look_for(self, target: Target, size_bytes: int) -> Presence:
        assert size_bytes == 7
        name = target.url.rpartition("/")[2]
        self.asked.append(name)
        presence = self.presences[name]
        self.meanwhile()
        return presence

    async def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        await anyio.sleep(0.01)
        return function(*arguments)

    def witnesses(self) -> Witnesses:
        calls: Any = self
        clock = Clock(anyio.current_time, anyio.current_time)
        return Witnesses(self.find, self, Context(SETTINGS, DatabaseClock(clock), calls))

    def prove(self, count: int = 1) -> list[Proof]:
        """Request several proofs concurrently."""
        proofs: list[Proof] = []

        async def main() -> None:
            witnesses = self.witnesses()

            async def ask() -> None:
                proofs.append(await witnesses.prove("fast", "part", anyio.current_time()))

            async with anyio.create_task_group() as tasks:
                for _ in range(count):
                    tasks.start_soon(ask)
            assert sum(witnesses._proofs.values()) <= count

        with simulated_threads():
            run(main)
        return proofs


@pytest.mark.parametrize(
    ("presences", "proof", "asked"),
    [
        ([], Proof(ProofResult.NO_WITNESS), 0),
        ([THERE], RIGHT, 1),
        ([THERE, ABSENT], RIGHT, 1),
        ([UNKNOWN, THERE], RIGHT, 2),
        ([ABSENT, THERE], for_younger("w1", 2), 4),
        ([ABSENT, UNKNOWN, THERE, ABSENT], for_younger("w1", 3), 6),
        ([UNKNOWN, ABSENT, THERE], for_younger("w2", 3), 6),
        ([UNKNOWN], Proof(ProofResult.UNKNOWN), 1),
        ([ABSENT, UNKNOWN, ABSENT], Proof(ProofResult.UNKNOWN), 3),
        ([ABSENT], WRONG, 2),
        ([ABSENT, ABSENT, ABSENT], WRONG, 6),
    ],
)
def test_proof_follows_from_the_presences(
    presences: list[Presence], proof: Proof, asked: int
) -> None:
    site = Site(**{f"w{n}": presence for n, presence in enumerate(presences, 1)})
    assert site.prove() == [proof]
    assert len(site.asked) == asked


def test_a_store_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call keeps a thread, so few are made until one of them ends."""
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 0.02)
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.0)
    site = Site(w=THERE)
    answer = threading.Event()

    def hang() -> None:
        assert answer.wait(30)

    site.meanwhile = hang

    async def main() -> None:
        witnesses = site.witnesses()

        async def prove(part: str) -> ProofResult:
            return (await witnesses.prove("fast", part, anyio.current_time())).result

        async def prove_many(name: str) -> None:
            async def prove_one(number: int) -> None:
                assert await prove(f"{name}{number}") is ProofResult.UNKNOWN

            async with anyio.create_task_group() as tasks:
                for number in range(12):
                    tasks.start_soon(prove_one, number)

        name = "part"
        while len(site.asked) < 4:  # a thread may begin too late to ask
            name += "again"
            await prove_many(name)
        await prove_many("another")
        assert len(site.asked) <= 4 + 3
        answer.set()
        assert all(ended.wait(20) for ended in witnesses._hanging["fast"])
        monkeypatch.setattr(module, "_ANSWER_SECONDS", 20)
        assert await prove("part") is ProofResult.RIGHT

    anyio.run(main)


def test_concurrent_callers_share_a_proof() -> None:
    site = Site(w=THERE)
    assert {proof.result for proof in site.prove(100)} == {ProofResult.RIGHT}
    assert len(site.asked) <= 2


def test_concurrent_callers_share_a_failed_proof() -> None:
    site = Site(w=ABSENT)
    assert {proof.result for proof in site.prove(100)} == {ProofResult.WRONG}
    assert len(site.asked) <= 4


def test_older_proof_does_not_count() -> None:
    site = Site(w=THERE)

    async def main() -> None:
        witnesses = site.witnesses()
        for _ in range(3):
            await anyio.sleep(1)
            await witnesses.prove("fast", "part", anyio.current_time())
        asked = anyio.current_time()
        for since in (0.0, asked - 5):
            await witnesses.prove("fast", "part", since)

    with simulated_threads():
        run(main)
    assert len(site.asked) == 3


@pytest.mark.parametrize(
    ("meanwhile", "result"),
    [
        (lambda site: site.presences.clear(), ProofResult.NO_WITNESS),
        (lambda site: setattr(site, "presences", {"x": THERE}), ProofResult.RIGHT),
        (lambda site: setattr(site, "presences", {"x": ABSENT}), ProofResult.UNKNOWN),
        (lambda site: site.presences.update(w=THERE), ProofResult.RIGHT),
        (lambda site: setattr(site, "away", True), ProofResult.UNKNOWN),
    ],
)
def test_image_that_changes_meanwhile_is_no_proof(
    meanwhile: Callable[[Site], None], result: ProofResult
) -> None:
    site = Site(w=ABSENT)
    site.meanwhile = lambda: meanwhile(site)
    assert site.prove()[0].result is result


@pytest.mark.parametrize(
    ("later", "proof"),
    [
        ({"new": THERE}, RIGHT),  # it was being deleted
        ({"old": THERE, "new": THERE}, RIGHT),
        ({"old": ABSENT}, Proof(ProofResult.WRONG, "old", 7, frozenset({None}))),
        ({"other": ABSENT, "new": THERE}, Proof(ProofResult.UNKNOWN)),
        ({}, Proof(ProofResult.NO_WITNESS)),
    ],
)
def test_an_old_image_that_is_absent_once_casts_no_doubt(
    later: dict[str, Presence], proof: Proof
) -> None:
    site = Site(old=ABSENT, new=THERE)

    def change() -> None:
        if len(site.asked) == 2:
            site.presences = later

    site.meanwhile = change
    assert site.prove() == [proof]


def test_parts_and_stores_are_proven_separately() -> None:
    site = Site(w=THERE)

    async def main() -> None:
        witnesses = site.witnesses()
        for store, part in (("a", "p"), ("a", "q"), ("b", "p")):
            await witnesses.prove(store, part, 0)
        assert dict(witnesses._proofs) == {("a", ProofResult.RIGHT): 2, ("b", ProofResult.RIGHT): 1}

    with simulated_threads():
        run(main)
    assert len(site.asked) == 3


def test_unexpected_error_is_no_proof(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(w=THERE)

    def fail() -> None:
        raise RuntimeError("boom")

    site.meanwhile = fail
    assert site.prove() == [Proof(ProofResult.UNKNOWN)]
    assert "Cannot look for a live image of store fast" in caplog.text
