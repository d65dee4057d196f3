# SPDX-License-Identifier: Apache-2.0
"""The renewal of the index of shared data, beside claims."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import anyio
import pytest
from oslo_db import exception as db_exception

from evscrub.domain.clock import Clock
from evscrub.registry.gateway import RETRY_SECONDS, Registry, RegistryGateway
from evscrub.registry.shared_urls import SharedUrls
from evscrub.scrubbing.index_renewal import IndexRenewal
from evscrub.scrubbing.scrubber import Scrubber
from tests.unit.simulated_loop import run
from tests.unit.world import World, fast, simulated_threads


class Bench:
    """An index of pages; each of them raises an error once, if it has one."""

    def __init__(self, pages: int, errors: dict[int, Exception] | None = None) -> None:
        self.is_old = True
        self.read: list[tuple[float, int]] = []
        self._pages = pages
        self._errors = errors or {}
        self._next = 0

    def renew_page(self) -> bool:
        self.read.append((round(anyio.current_time(), 1), self._next))
        if error := self._errors.pop(self._next, None):
            raise error
        self._next += 1
        self.is_old = self._next < self._pages
        return self.is_old

    def run(self, *claims: float) -> None:
        """Claim at each of these times, seconds."""

        async def main() -> None:
            clock = Clock(anyio.current_time, anyio.current_time)
            registry = cast("Registry", SimpleNamespace(dispose=lambda: None))
            calls = RegistryGateway(clock, registry)
            renewal = IndexRenewal(cast("SharedUrls", self), calls)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(renewal.run)
                for at in claims:
                    await anyio.sleep(at - anyio.current_time())
                    renewal.claimed()
                await anyio.sleep(1000)
                tasks.cancel_scope.cancel()

        with simulated_threads(0.1):
            run(main)


def test_all_pages_are_read_after_one_claim() -> None:
    bench = Bench(3)
    bench.run(10)
    assert bench.read == [(10.1, 0), (10.2, 1), (10.3, 2)]


def test_nothing_is_read_without_a_claim() -> None:
    bench = Bench(3)
    bench.run()
    assert bench.read == []


def test_a_young_index_is_left_alone() -> None:
    bench = Bench(3)
    bench.is_old = False
    bench.run(10, 20)
    assert bench.read == []


def test_it_is_renewed_each_time_it_is_old() -> None:
    bench = Bench(1)
    bench.run(10, 20)
    assert bench.read == [(10.1, 0)]
    bench.is_old = True
    bench.run(30)
    assert bench.read == [(10.1, 0), (30.1, 1)]


def test_an_outage_ends_it_until_the_next_claim() -> None:
    bench = Bench(3, {1: db_exception.DBConnectionError(None)})
    bench.run(10, 10 + 2 * RETRY_SECONDS)
    assert bench.read == [(10.1, 0), (10.2, 1), (20.1, 1), (20.2, 2)]


def test_another_error_ends_it_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(3, {1: ValueError("a date")})
    bench.run(10, 20, 30)
    assert bench.read == [(10.1, 0), (10.2, 1), (310.3, 1), (310.4, 2)]
    assert "could not be renewed" in caplog.text


def test_claims_of_a_scrubber_renew_its_index() -> None:
    bench, world = Bench(3), World(store=fast)
    image = world.add("owner", "store")

    async def replace_index(scrubber: Scrubber) -> None:
        scrubber._claimer.index_renewal._shared_urls = cast("SharedUrls", bench)

    world.run(until=10, meanwhile=replace_index)
    assert world.status(image) == "deleted"
    assert [page for _, page in bench.read] == [0, 1, 2]
