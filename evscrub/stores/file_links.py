# SPDX-License-Identifier: Apache-2.0
"""Which files symbolic links in the stores' directories lead to.

To unlink such a file takes the data from the image that has the link. A hard link needs no care: it
keeps the data when another one goes.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from evscrub.stores.directories import Bounded

#: A directory is read again no earlier than this, and so rarely that it takes a hundredth of the
#: time at most.
_LEAST_SECONDS = 1.0
_SHARE = 100
#: How long one that did not answer is left alone.
_HUNG_SECONDS = 5.0
_MOST_LINKS = 40  #: in a row, as many as Linux follows

Entry = tuple[str, str]
"""A file's place: the real path of its directory, and its name there."""


@dataclass(frozen=True, slots=True)
class _Listing:
    targets: frozenset[Entry]
    changed: int  #: the directory's time of change, before it was read; 0 where it is not there
    took: float


class FileLinks:
    """Knows where symbolic links lead to; safe in threads.

    :param wait_seconds: how long a directory may take to be read; one with a million files that
        are far away takes minutes, and is ready at a later call.
    :param clock: seconds that never go back.
    """

    def __init__(
        self, wait_seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = Bounded(self._list, wait_seconds)
        self._clock = clock
        self._known: dict[str, _Listing] = {}
        self._fresh_until: dict[str, float] = {}

    def leads_to(self, path: str, directories: list[str]) -> bool | None:
        """Whether a link leads to a file; None if a directory was never read.

        Of one that does not answer any more, what it had last counts.

        :param path: absolute.
        :param directories: where to look for links.
        """
        known = [self._targets_in(directory) for directory in directories]
        if any(known):
            entry = _entry(path)
            if any(entry in targets for targets in known if targets):
                return True
        return None if None in known else False

    def _targets_in(self, directory: str) -> frozenset[Entry] | None:
        now = self._clock()
        if now >= self._fresh_until.get(directory, 0.0) and self._read(directory) is None:
            self._fresh_until[directory] = now + _HUNG_SECONDS
        listing = self._known.get(directory)
        return None if listing is None else listing.targets

    def _list(self, directory: str) -> _Listing:
        began = self._clock()
        changed = _changed(directory)
        listing = self._known.get(directory)
        if listing is None or listing.changed != changed:
            targets = frozenset(_targets(directory)) if changed else frozenset()
            listing = _Listing(targets, changed, self._clock() - began)
            self._known[directory] = listing
        pause = max(_LEAST_SECONDS, _SHARE * listing.took)
        self._fresh_until[directory] = self._clock() + pause
        return listing


def _changed(directory: str) -> int:
    try:
        return Path(directory).stat().st_mtime_ns
    except OSError:
        return 0


def _targets(directory: str) -> Iterator[Entry]:
    try:
        with os.scandir(directory) as entries:
            links = [entry.path for entry in entries if entry.is_symlink()]
    except OSError:  # such as one that may be entered and not read
        return
    for link in links:
        path = Path(link)
        for _ in range(_MOST_LINKS):
            try:
                path = path.parent / path.readlink()
            except OSError:  # not a link, or not there
                break
            yield _entry(str(path))


def _entry(path: str) -> Entry:
    directory, name = os.path.split(path)
    return os.path.realpath(directory), name
