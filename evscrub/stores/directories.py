# SPDX-License-Identifier: Apache-2.0
"""Identify the directories of paths, without blocking on a file system that hangs."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

#: How long an answer is cached: directories are rarely mounted or linked.
_KEEP_SECONDS = 30.0
_MOST = 1024


@dataclass(slots=True)
class _Look(Generic[T]):
    until: float  #: when callers stop waiting, seconds of the monotonic clock
    answer: T | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Bounded(Generic[T]):
    """Calls a function of a path in a thread, which is abandoned if it hangs. Thread-safe.

    At most one call for each path runs at a time; further callers wait for its result.

    :param ask: the function; blocks as long as the file system does.
    :param wait_seconds: how long callers wait, from the start of the call.
    :param clock: seconds on an axis that only goes forward.
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
        """Return the result for a path, or None if there is none in time."""
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

    :param real: path without symbolic links.
    :param key: device and inode; None if the directory does not exist.
    """

    real: str
    key: tuple[int, int] | None


class Directories:
    """Compares directories by identity instead of by path.

    :param wait_seconds: how long to wait for a file system.
    :param clock: returns seconds that never go back.
    """

    def __init__(
        self, wait_seconds: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look = Bounded(_find, wait_seconds)
        self._clock = clock
        self._known: dict[str, tuple[float, Directory]] = {}

    def find(self, path: str) -> Directory | None:
        """Return the directory of a path, or None if its file system does not answer in time."""
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
        """Return whether two paths lead to the same directory, or None if that is unknown."""
        if one == other:
            return True
        first, second = self.find(one), self.find(other)
        if first is None or second is None:
            return None
        if first.key is None or second.key is None:
            return first.real == second.real
        if first.key == second.key:
            return True
        # A directory of a network file system may be mounted twice, with two device numbers.
        networked = not os.major(first.key[0]) and not os.major(second.key[0])
        return None if networked and first.key[1] == second.key[1] else False

    def holds(self, directory: str, path: str) -> bool:
        """Return whether a path leads to a directory or below it; False if that is unknown."""
        if path == directory:
            return True
        outer, inner = self.find(directory), self.find(path)
        if outer is None or inner is None:
            return False
        if outer.key is not None and outer.key == inner.key:
            return True
        return os.path.commonpath([outer.real, inner.real]) == outer.real

    def depth(self, directory: str) -> int:
        """Return the number of directories above a directory."""
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
