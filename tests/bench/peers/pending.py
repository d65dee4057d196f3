# SPDX-License-Identifier: Apache-2.0
"""So many images that wait, in one of several ways; says bytes each, adds and pops a second.

Ids and times are made outside of what is timed, a thousand at a time, and not kept, as they come
from the bus; owners are among a thousand. Figures are of CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import heapq
import random
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from evscrub.queueing.delay_queue import DelayQueue
from tests.bench.peers.saying import limit, say

NOW = 1_800_000_000.0
_AHEAD_SECONDS = 3600.0
_CHUNK = 1000
_POP = 100

Chunk = list[tuple[str, float, str]]


class Pending(ABC):
    """One way to let images wait.

    :param count: how many at most.
    """

    @abstractmethod
    def __init__(self, count: int) -> None: ...

    @abstractmethod
    def add(self, chunk: Chunk) -> None:
        """Let these wait."""

    @abstractmethod
    def pop(self) -> int:
        """Take out all, due as they are; returns how many."""


class Evscrub(Pending):
    """The delay queue."""

    def __init__(self, count: int) -> None:
        self._queue = DelayQueue(2 * count, origin=NOW)  # events may not fill all of it

    def add(self, chunk: Chunk) -> None:
        add = self._queue.add
        for image_id, due, owner in chunk:
            add(image_id, due, owner=owner)

    def pop(self) -> int:
        self._queue.advance(NOW + _AHEAD_SECONDS)
        count = 0
        while taken := self._queue.take(None, _POP):
            for image in taken:
                self._queue.done(image.image_id)
            count += len(taken)
        return count


class Heap(Pending):
    """A heap by time, with a dictionary so that an id is in it once."""

    def __init__(self, count: int) -> None:
        self._heap: list[tuple[float, str]] = []
        self._entries: dict[str, tuple[float, str]] = {}

    def add(self, chunk: Chunk) -> None:
        heap, entries = self._heap, self._entries
        for image_id, due, owner in chunk:
            known = entries.get(image_id)
            if known is None or due < known[0]:
                entries[image_id] = (due, owner)
                heapq.heappush(heap, (due, image_id))

    def pop(self) -> int:
        heap, entries = self._heap, self._entries
        count = 0
        while heap:
            due, image_id = heapq.heappop(heap)
            known = entries.get(image_id)
            if known is not None and known[0] == due:
                del entries[image_id]
                count += 1
        return count


class Timers(Pending):
    """A timer of asyncio each, with a dictionary so that an id has one."""

    def __init__(self, count: int) -> None:
        self._now = NOW
        self._loop = asyncio.new_event_loop()
        self._loop.time = lambda: self._now  # type: ignore[method-assign] # a clock that stands
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._count = 0

    def add(self, chunk: Chunk) -> None:
        call_at, timers = self._loop.call_at, self._timers
        for image_id, due, owner in chunk:
            known = timers.get(image_id)
            if known is None or due < known.when():
                if known is not None:
                    known.cancel()
                timers[image_id] = call_at(due, self._due, image_id, owner)

    def _due(self, image_id: str, _owner: str) -> None:
        del self._timers[image_id]
        self._count += 1
        if not self._timers:
            self._loop.stop()

    def pop(self) -> int:
        self._now = NOW + _AHEAD_SECONDS
        self._loop.run_forever()
        self._loop.close()
        return self._count


KINDS: dict[str, type[Pending]] = {"evscrub": Evscrub, "heapq": Heap, "asyncio": Timers}


def chunks(count: int) -> Iterator[Chunk]:
    """Yield what is to be added: images due in no order within the next hour."""
    numbers = random.Random(1)
    owners = [uuid.UUID(int=numbers.getrandbits(128)).hex for _ in range(1000)]
    for start in range(0, count, _CHUNK):
        yield [
            (
                str(uuid.UUID(int=numbers.getrandbits(128))),
                NOW + numbers.random() * _AHEAD_SECONDS,
                numbers.choice(owners),
            )
            for _ in range(min(_CHUNK, count - start))
        ]


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def measure(kind: str, count: int) -> dict[str, float]:
    """Let `count` images wait and take them out again.

    :returns: bytes of resident memory each, adds and pops for a second of CPU time.
    """
    sum(len(chunk) for chunk in chunks(10 * _CHUNK))  # the interpreter's memory for them is there
    gc.collect()
    before = rss_bytes()
    pending = KINDS[kind](count)
    adding = 0.0
    for chunk in chunks(count):
        began = time.thread_time()
        pending.add(chunk)
        adding += time.thread_time() - began
    gc.collect()
    used = rss_bytes() - before
    began = time.thread_time()
    popped = pending.pop()
    popping = time.thread_time() - began
    if popped != count:
        raise AssertionError(f"{popped} of {count} came out")
    return {"bytes": used / count, "adds": count / adding, "pops": count / popping}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--limit", type=int, default=300, help="seconds until it ends itself")
    arguments = parser.parse_args()
    limit(arguments.limit)
    say("end", **measure(arguments.kind, arguments.count))


if __name__ == "__main__":
    main()
