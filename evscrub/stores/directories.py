# SPDX-License-Identifier: Apache-2.0
"""Which directory a path leads to, looked up where a file system that hangs holds nobody up."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

#: How long an answer is used: directories are mounted and linked rarely.
_KEEP_SECONDS = 30.0
_MOST = 1024


@dataclass(slots=True)
class _Look(Generic[T]):
    until: float  #: when those who ask stop waiting
    answer: T | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Bounded(Generic[T]):
    """Asks about paths, each in a thread that is left behind if it hangs.

    While one is under way no other is started for the same path. Safe in threads.

    :param ask: blocks for as long as the file system does.
    :param wait_seconds: how long callers wait, from when it began.
    :param clock: seconds that never go back.
    """

    def __init__(
        self,
        ask: Callable[[str], T],
        wait_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: dict[str, _Look[T]] = {}

    def __call__(self, path: str) -> T | None:
        """Return the answer, None if there is none in time."""
        with self._lock:
            look = self._under_way.get(path)
            if look is None:
                look = self._under_way[path] = _Look(self._clock() + self._wait_seconds)
                threading.Thread(target=self._run, args=(path, look), daemon=True).start()
        look.done.wait(max(0.0, look.until - self._clock()))
        return look.answer

    def _run(self, path: str, look: _Look[T]) -> None:
        try:
            look.answer = self._ask(path)
        finally:
            with self._lock:
                del self._under_way[path]
            look.done.set()


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory.

    :param real: its path without symbolic links.
    :param key: its device and inode; None if it is not there.
    """

    real: str
    key: tuple[int, int] | None


class Directories:
    """Tells directories apart, whatever their paths.

    :param wait_seconds: how long a file system may take to answer.
    :param clock: seconds that never go back.
    """

    def __init__(
        self, wait_seconds: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look = Bounded(_find, wait_seconds)
        self._clock = clock
        self._known: dict[str, tuple[float, Directory]] = {}

    def find(self, path: str) -> Directory | None:
        """Return the directory that a path leads to; None if its file system does not answer."""
        now = self._clock()
        known = self._known.get(path)
        if known is not None and now - known[0] < _KEEP_SECONDS:
            return known[1]
        found = self._look(path)
        if found is not None:
            if len(self._known) >= _MOST:
                self._known = {}
            self._known[path] = (now, found)
        return found

    def same(self, one: str, other: str) -> bool | None:
        """Whether two paths lead to one directory; None if that cannot be told."""
        if one == other:
            return True
        first, second = self.find(one), self.find(other)
        if first is None or second is None:
            return None
        if first.key is None or second.key is None:
            return first.real == second.real
        if first.key == second.key:
            return True
        # A directory of a network file system may be mounted twice, as two devices.
        networked = not os.major(first.key[0]) and not os.major(second.key[0])
        return None if networked and first.key[1] == second.key[1] else False

    def holds(self, directory: str, path: str) -> bool:
        """Whether a path is a directory's, or of one below it; not if that cannot be told."""
        if path == directory:
            return True
        outer, inner = self.find(directory), self.find(path)
        if outer is None or inner is None:
            return False
        if outer.key is not None and outer.key == inner.key:
            return True
        return os.path.commonpath([outer.real, inner.real]) == outer.real

    def depth(self, directory: str) -> int:
        """How many directories are above one."""
        found = self.find(directory)
        return 0 if found is None else found.real.rstrip("/").count("/")


def _find(path: str) -> Directory:
    real = path
    try:
        real = os.path.realpath(path)
        there = Path(real).stat()
    except (OSError, ValueError):
        return Directory(real, None)
    return Directory(real, (there.st_dev, there.st_ino))
