# SPDX-License-Identifier: Apache-2.0
"""Worker threads: they delete batches, and stay for the next one.

Store drivers block, so each delete needs a thread. A task and a hop to a thread for each would cost
the event loop more than all else that is done for an image; here the event loop gives a batch to a
thread by a queue, and is woken once for all batches that have ended meanwhile.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

import anyio
from oslo_log import log as logging

from evscrub.scrubbing.batch import Batch
from evscrub.scrubbing.lane import Lane

LOG = logging.getLogger(__name__)


class Workers:
    """Threads that delete batches. Only the event loop may use it.

    There are as many threads as batches ran at a time at most; they stay until :meth:`close`.

    :param delete: deletes the jobs of a batch in a thread.
    """

    def __init__(self, delete: Callable[[Batch], None]) -> None:
        self._delete = delete
        self._threads = 0
        self._running = 0  #: batches that are with a thread, or wait for one
        self._begun: SimpleQueue[tuple[Lane, Batch] | None] = SimpleQueue()
        self._done: deque[tuple[Lane, Batch]] = deque()
        self._some = anyio.Event()
        self._is_told = False  #: whether the event loop is about to look for what is done

    def start(self, lane: Lane, batch: Batch) -> None:
        """Give a batch to a thread; :meth:`ended` returns it when that has ended.

        :raises RuntimeError: all threads have a batch, and no other can be started.
        """
        # The batch must not wait for the thread of another, which may hang.
        if self._running == self._threads:
            self._start_thread()
        self._running += 1
        self._begun.put((lane, batch))

    async def ended(self) -> list[tuple[Lane, Batch]]:
        """Wait until batches have ended, and return all that have, each with its lane."""
        await self._some.wait()
        self._some = anyio.Event()
        self._is_told = False  # before the look: what ends after it is told again
        ended = []
        while self._done:
            ended.append(self._done.popleft())
        self._running -= len(ended)
        return ended

    def close(self) -> None:
        """Let the threads end once they have nothing to do."""
        for _ in range(self._threads):
            self._begun.put(None)
        self._threads = 0

    def _start_thread(self) -> None:
        loop = asyncio.get_running_loop()
        # A daemon: a delete that hangs does not keep the process from ending.
        name = f"worker {self._threads + 1}"
        threading.Thread(target=self._work, args=(loop,), name=name, daemon=True).start()
        self._threads += 1

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while (begun := self._begun.get()) is not None:
            try:
                self._delete(begun[1])
            except BaseException:  # the batch must come back, and the thread is needed
                LOG.exception("A worker thread failed")
            self._done.append(begun)
            del begun  # or an idle thread would keep its images in memory
            if not self._is_told:
                self._is_told = True
                with suppress(RuntimeError):  # the loop is closed: the process ends
                    loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._some.set()
