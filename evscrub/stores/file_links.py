# SPDX-License-Identifier: Apache-2.0
"""Find the files to which symbolic links in the directories of stores point.

Unlinking such a file removes the data of the image that has the link. Hard links are safe: the data
stays until the last one is removed.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from oslo_log import log as logging

from evscrub.stores.directories import Bounded

LOG = logging.getLogger(__name__)

#: Shortest time between two reads of a directory. It is longer for a slow directory, so that reads
#: take at most a hundredth of the time.
_LEAST_SECONDS = 1.0
_SHARE = 100
#: How long to wait before a directory that did not answer is read again.
_HUNG_SECONDS = 5.0
_MOST_LINKS = 40  #: in a chain, the limit of Linux
#: Errors of a directory that has no links, or none that can be followed, and of a link that is
#: gone. Any other, such as too many open files, tells nothing of the links.
_HAS_NONE = (FileNotFoundError, NotADirectoryError, PermissionError)

Entry = tuple[str, str]
"""A file: the real path of its directory, and its name there."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """What a read of a directory found.

    :param changed: mtime of the directory before it was read, ns; 0 if it does not exist.
    :param took: duration of the read, seconds.
    :param is_final: whether only a later mtime can tell of another change: this one was seen before
        already. In the tick of a file system's clock, up to a second, a directory may change after
        it was read.
    """

    targets: frozenset[Entry]
    changed: int
    took: float
    is_final: bool


class FileLinks:
    """Tracks the targets of symbolic links. Thread-safe.

    :param wait_seconds: how long to wait for a directory to be read. A directory with a million
        files on a network file system takes minutes; its result is used by a later call.
    :param clock: returns seconds that never go back.
    """

    def __init__(
        self, wait_seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = Bounded(self._list, wait_seconds)
        self._clock = clock
        self._known: dict[str, _Listing] = {}
        self._fresh_until: dict[str, float] = {}

    def leads_to(self, path: str, directories: list[str]) -> bool | None:
        """Return whether a symbolic link points to a file.

        If a directory does not answer, or cannot be read, the result of its last read is used.

        :param path: absolute path of the file.
        :param directories: where to look for links.
        :returns: None if no link was found but a directory has never been read.
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

    def _list(self, directory: str) -> _Listing | None:
        """Return what is known of a directory, read anew if it may have changed; None on errors."""
        began = self._clock()
        listing = self._known.get(directory)
        try:
            changed = _changed(directory)
            is_same = listing is not None and listing.changed == changed
            if listing is None or not (is_same and listing.is_final):
                targets = frozenset(_targets(directory)) if changed else frozenset()
                listing = _Listing(targets, changed, self._clock() - began, is_same)
                self._known[directory] = listing
        except OSError as error:
            LOG.debug("Cannot read the links in %s: %s", directory, error.strerror)
            return None
        pause = max(_LEAST_SECONDS, _SHARE * listing.took)
        self._fresh_until[directory] = self._clock() + pause
        return listing


def _changed(directory: str) -> int:
    try:
        return Path(directory).stat().st_mtime_ns
    except _HAS_NONE:
        return 0


def _targets(directory: str) -> Iterator[Entry]:
    links = []
    with suppress(*_HAS_NONE), os.scandir(directory) as entries:
        links = [entry.path for entry in entries if entry.is_symlink()]
    for link in links:
        path = Path(link)
        for _ in range(_MOST_LINKS):
            try:
                path = path.parent / path.readlink()
            except _HAS_NONE:
                break
            except OSError as error:
                # EINVAL: it is no link. What a link leads to may be broken for good.
                if error.errno == errno.EINVAL or str(path) != link:
                    break
                raise
            yield _entry(str(path))


def _entry(path: str) -> Entry:
    directory, name = os.path.split(path)
    return os.path.realpath(directory), name
