# SPDX-License-Identifier: Apache-2.0
"""Whether the registry is away: by what fails, and by what is never answered."""

from __future__ import annotations

import contextlib
import errno
import math
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
import sqlalchemy as sa
from oslo_db import exception as db_exception

from evscrub.domain.clock import Clock
from evscrub.registry.gateway import (
    RETRY_SECONDS,
    SILENT_SECONDS,
    RegistryAwayError,
    RegistryGateway,
)
from tests.unit.simulated_loop import run

#: What a primary says that became a replica.
READ_ONLY = db_exception.DBConnectionError(
    sa.exc.OperationalError("UPDATE", {}, Exception(1290, "running with the --read-only option"))
)


class FakeRegistry:
    """A registry whose calls take simulated time, and for ever while it is frozen."""

    def __init__(self) -> None:
        self.frozen = False
        self.error: Exception | None = None
        self.takes_changes = True
        self.disposed = 0
        self.probed = 0

    async def answer(self, seconds: float = 0.01) -> str:
        await anyio.sleep(math.inf if self.frozen else seconds)
        if self.error is not None:
            raise self.error
        return "answer"

    async def now(self) -> object:
        self.probed += 1
        return await self.answer()

    async def try_to_write(self) -> None:
        self.probed += 1
        await self.answer()
        if not self.takes_changes:
            raise READ_ONLY

    async def dispose(self) -> None:
        self.disposed += 1


def play(scene: Callable[[RegistryGateway, Any], Awaitable[None]]) -> None:
    """Play a scene in simulated time, with calls watched."""
    registry: Any = FakeRegistry()

    async def run_sync(function: Callable[..., Any], **_: Any) -> Any:
        return await function()

    async def main() -> None:
        calls = RegistryGateway(Clock(anyio.current_time, anyio.current_time), registry)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(calls.run)
            await scene(calls, registry)
            tasks.cancel_scope.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anyio.to_thread, "run_sync", run_sync)
        run(main)


async def ignore(calls: RegistryGateway, function: Callable[..., Any], **options: Any) -> None:
    with contextlib.suppress(RegistryAwayError):
        await calls.call(function, **options)


def test_unanswered_call_means_down() -> None:
    async def scene(calls: RegistryGateway, registry: Any) -> None:
        registry.frozen = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ignore, calls, registry.answer)
            await anyio.sleep(SILENT_SECONDS - 1)
            assert not calls.is_away
            await anyio.sleep(3)
            assert calls.is_away
            assert 0 < calls.away_seconds <= RETRY_SECONDS
            # Idle connections may be to the frozen server, new ones to another.
            assert registry.disposed == 1
            registry.frozen = False
            await anyio.sleep(RETRY_SECONDS + 2)
            # It is found to be back by a question, though the old call still waits.
            assert registry.probed == 1
            assert not calls.is_away
            await anyio.sleep(10 * SILENT_SECONDS)
            assert not calls.is_away
            assert registry.disposed == 1
            tasks.cancel_scope.cancel()

    play(scene)


def test_slow_call_among_quick_ones_does_not_mean_down() -> None:
    async def scene(calls: RegistryGateway, registry: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(calls.call, lambda: registry.answer(100))
            for _ in range(20):
                await calls.call(registry.answer)
                await anyio.sleep(5)
                assert not calls.is_away
        assert registry.disposed == 0

    play(scene)


def test_a_call_with_patience_is_abandoned() -> None:
    async def scene(calls: RegistryGateway, registry: Any) -> None:
        registry.frozen = True
        began = anyio.current_time()
        with pytest.raises(RegistryAwayError):
            await calls.call(registry.answer, patience_seconds=3)
        assert anyio.current_time() - began == pytest.approx(3)
        assert calls.is_away
        assert registry.disposed == 1

    play(scene)


async def check_back(calls: RegistryGateway, registry: Any) -> None:
    """It is there, and is asked for a sign of life no more."""
    assert not calls.is_away
    assert calls.away_seconds == 0
    probed = registry.probed
    await anyio.sleep(60)
    assert registry.probed == probed


def test_registry_is_probed_until_it_answers() -> None:
    async def scene(calls: RegistryGateway, registry: Any) -> None:
        registry.error = db_exception.DBConnectionError("refused")
        with pytest.raises(RegistryAwayError):
            await calls.call(registry.answer)
        await anyio.sleep(60)
        assert calls.is_away
        assert 5 <= registry.probed <= 12
        registry.error = None
        await anyio.sleep(RETRY_SECONDS + 2)
        await check_back(calls, registry)

    play(scene)


def test_a_probe_that_cannot_be_made_is_repeated() -> None:
    async def scene(calls: RegistryGateway, registry: Any) -> None:
        registry.error = db_exception.DBConnectionError("refused")
        with pytest.raises(RegistryAwayError):
            await calls.call(registry.answer)
        registry.error = OSError(errno.EMFILE, "Too many open files")
        await anyio.sleep(60)
        assert calls.is_away
        assert 5 <= registry.probed <= 12
        registry.error = None
        await anyio.sleep(RETRY_SECONDS + 2)
        await check_back(calls, registry)

    play(scene)


def test_read_only_registry_is_down_despite_answered_reads(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")

    async def scene(calls: RegistryGateway, registry: Any) -> None:
        registry.takes_changes = False
        with pytest.raises(RegistryAwayError):
            await calls.call(registry.try_to_write)
        for _ in range(30):  # as sweeps do
            await anyio.sleep(1.5)
            await calls.call(registry.answer)
            assert calls.is_away
            assert calls.refuses_changes
        registry.takes_changes = True
        await anyio.sleep(RETRY_SECONDS + 2)
        assert not calls.refuses_changes
        await check_back(calls, registry)

    play(scene)
    (away, back) = (r.getMessage() for r in caplog.records if "registry" in r.getMessage())
    assert away.startswith("The registry is away: 1290")
    assert "set [database] connection to the primary. Nothing is claimed meanwhile" in away
    assert back.startswith("The registry is back after 4")


def test_other_exceptions_pass_through() -> None:
    async def scene(calls: RegistryGateway, registry: Any) -> None:
        registry.error = KeyError("defect")
        with pytest.raises(KeyError):
            await calls.call(registry.answer)
        assert not calls.is_away

    play(scene)


def test_nothing_is_watched_while_no_call_is_pending() -> None:
    async def scene(calls: RegistryGateway, registry: Any) -> None:
        looks = 0
        look = calls._look

        async def counted(now: float) -> None:
            nonlocal looks
            looks += 1
            await look(now)

        calls._look = counted  # type: ignore[method-assign] # to count
        await anyio.sleep(100)
        assert looks == 0
        await calls.call(lambda: registry.answer(5))
        await anyio.sleep(100)
        assert 5 <= looks <= 6

    play(scene)


@pytest.mark.parametrize("began_seconds_before", [0.0, 0.5, 1.5])
def test_stopped_process_does_not_mean_down(began_seconds_before: float) -> None:
    class Stopped(Clock):
        """A clock that jumps as it does for a process that was stopped."""

        def __init__(self) -> None:
            self.stopped_for = 0.0
            super().__init__(lambda: anyio.current_time() + self.stopped_for)

    registry: Any = FakeRegistry()

    async def run_sync(function: Callable[..., Any], **_: Any) -> Any:
        return await function()

    async def main() -> None:
        clock = Stopped()
        calls = RegistryGateway(clock, registry)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(calls.run)
            tasks.start_soon(calls.call, lambda: registry.answer(5))
            await anyio.sleep(began_seconds_before)
            clock.stopped_for = 3600
            await anyio.sleep(3)
            assert not calls.is_away
            await anyio.sleep(3)
            assert not calls.is_away
            tasks.cancel_scope.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anyio.to_thread, "run_sync", run_sync)
        run(main)


def test_a_call_with_a_patience_does_not_wait_for_those_that_hang() -> None:
    """Else leases would expire while claims wait for one that the database does not answer."""
    ends = threading.Event()
    registry: Any = FakeRegistry()

    async def main() -> None:
        calls = RegistryGateway(Clock(time.monotonic, time.monotonic), registry)
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(calls.call, ends.wait)
            await anyio.wait_all_tasks_blocked()
            try:
                with anyio.fail_after(20):
                    assert await calls.call(lambda: "renewed", patience_seconds=60.0) == "renewed"
            finally:
                ends.set()

    anyio.run(main)
