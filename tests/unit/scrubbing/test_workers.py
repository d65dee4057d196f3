# SPDX-License-Identifier: Apache-2.0
"""Worker threads, real ones."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest

from evscrub.flow_control.adaptive_limit import Pace
from evscrub.flow_control.health import Health
from evscrub.scrubbing.batch import Batch
from evscrub.scrubbing.lane import Lane
from evscrub.scrubbing.workers import Workers
from tests.unit.world import new_job

DEADLINE_SECONDS = 60.0
LANE = Lane("a", Health(Pace(8, 0), lambda low, high: high), not_found_limit=0)


def batches(count: int) -> list[Batch]:
    return [Batch([new_job()], "o", 0.0) for _ in range(count)]


class Store:
    """Deletes that end when they are allowed to."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.hangs: dict[Batch, threading.Event] = {}
        self.workers = Workers(self.delete)

    def delete(self, batch: Batch) -> None:
        self.threads.append(threading.current_thread())
        if batch in self.hangs:
            assert self.hangs[batch].wait(DEADLINE_SECONDS)

    def hang(self, *some: Batch) -> None:
        self.hangs |= {batch: threading.Event() for batch in some}

    def release(self, *some: Batch) -> None:
        for batch in some:
            self.hangs[batch].set()

    def start(self, *some: Batch) -> None:
        for batch in some:
            self.workers.start(LANE, batch)

    async def ended(self, count: int) -> list[Batch]:
        """Return the next batches that end."""
        ended: list[Batch] = []
        while len(ended) < count:
            for lane, batch in await self.workers.ended():
                assert lane is LANE
                ended.append(batch)
        return ended


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.release(*store.hangs)
    store.workers.close()
    for thread in store.threads:
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive(), "a thread stays after close()"


def run(function: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        with anyio.fail_after(DEADLINE_SECONDS):
            await function()

    anyio.run(main)


def test_each_batch_is_deleted_once_and_comes_back(store: Store) -> None:
    async def work() -> None:
        some = batches(50)
        store.start(*some)
        assert set(await store.ended(50)) == set(some)
        assert len(store.threads) == 50

    run(work)


def test_thread_stays_for_the_next_batch(store: Store) -> None:
    async def work() -> None:
        for batch in batches(20):
            store.start(batch)
            assert await store.ended(1) == [batch]
        assert len(set(store.threads)) == 1

    run(work)


def test_batches_that_hang_hold_up_no_other(store: Store) -> None:
    async def work() -> None:
        first, second, third = batches(3)
        store.hang(first, second)
        store.start(first, second, third)
        assert await store.ended(1) == [third]
        store.start(third)  # by the thread that has deleted it before
        assert await store.ended(1) == [third]
        store.release(first, second)
        assert set(await store.ended(2)) == {first, second}
        assert len(set(store.threads)) <= 3

    run(work)


def test_event_loop_is_woken_once_for_many(store: Store) -> None:
    tell, told = store.workers._tell, []

    def counted() -> None:
        told.append(1)
        tell()

    store.workers._tell = counted  # type: ignore[method-assign] # counts

    async def work() -> None:
        store.start(*batches(10))
        until = time.monotonic() + DEADLINE_SECONDS
        while len(store.workers._done) < 10 and time.monotonic() < until:
            time.sleep(0.001)  # noqa: ASYNC251 - the event loop is busy meanwhile
        store.workers.close()  # a thread ends once it has seen that the loop is told
        for thread in store.threads:
            thread.join(DEADLINE_SECONDS)
        assert len(await store.ended(10)) == 10

    run(work)
    assert len(told) == 1


def refuse(store: Store, batch: Batch) -> None:
    """Start a batch where no thread can be started."""

    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="start new thread"):
            store.start(batch)


def test_without_a_thread_it_raises(store: Store) -> None:
    async def work() -> None:
        (batch,) = batches(1)
        refuse(store, batch)
        store.start(batch)
        assert await store.ended(1) == [batch]

    run(work)


def test_without_another_thread_it_raises_too(store: Store) -> None:
    """The thread that there is may hang."""

    async def work() -> None:
        first, second = batches(2)
        store.hang(first)
        store.start(first)
        refuse(store, second)
        store.start(second)
        assert await store.ended(1) == [second]
        store.release(first)
        assert await store.ended(1) == [first]

    run(work)


@pytest.mark.parametrize("error", [LookupError("no such thing"), SystemExit(1), BaseException()])
def test_batch_whose_thread_raises_comes_back_and_the_thread_stays(
    store: Store, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = batches(2)
    delete = store.workers._delete

    def raising(batch: Batch) -> None:
        delete(batch)
        if batch is first:
            raise error

    store.workers._delete = raising

    async def work() -> None:
        for batch in (first, second):
            store.start(batch)
            assert await store.ended(1) == [batch]
        assert len(set(store.threads)) == 1

    run(work)
    assert "A worker thread failed" in caplog.text


class EndsWhileLookedAt(deque[tuple[Lane, Batch]]):
    """A queue of what has ended; another batch ends right after it was found empty."""

    def __init__(self, end: Callable[[], None]) -> None:
        super().__init__()
        self._end = end

    def __bool__(self) -> bool:
        more = len(self) > 0
        if not more:
            self._end()
        return more


def test_batch_that_ends_during_the_look_is_told(store: Store) -> None:
    first, late = batches(2)
    store.hang(late)

    def end() -> None:
        if not store.hangs[late].is_set():
            store.release(late)
            until = time.monotonic() + DEADLINE_SECONDS
            while not len(store.workers._done) and time.monotonic() < until:
                time.sleep(0.001)

    store.workers._done = EndsWhileLookedAt(end)

    async def work() -> None:
        store.start(first, late)
        assert set(await store.ended(2)) == {first, late}

    run(work)


def test_idle_thread_keeps_no_batch(store: Store) -> None:
    async def work() -> None:
        (batch,) = batches(1)
        (job,) = batch.jobs
        store.start(batch)
        assert await store.ended(1) == [batch]
        del batch
        until = time.monotonic() + DEADLINE_SECONDS
        # The thread may be about to forget it.
        while sys.getrefcount(job) > 2 and time.monotonic() < until:
            time.sleep(0.001)  # noqa: ASYNC251 - only the thread is waited for
        assert sys.getrefcount(job) == 2

    run(work)


def test_delete_that_outlives_the_event_loop_says_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    (batch,) = batches(1)
    store.hang(batch)

    async def work() -> None:
        store.start(batch)

    run(work)
    store.release(batch)
    until = time.monotonic() + DEADLINE_SECONDS
    while not store.workers._done and time.monotonic() < until:
        time.sleep(0.001)
    store.workers.close()
    for thread in store.threads:
        thread.join(DEADLINE_SECONDS)
    assert not said
