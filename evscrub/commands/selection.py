# SPDX-License-Identifier: Apache-2.0
"""Select images for an operator's command: by id, from a file, or by owner and store.

A selection is read twice, to count the images and to act on them. Neither keeps ids in memory.
"""

import argparse
import errno
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TextIO

from evscrub.commands.arguments import name
from evscrub.domain import hold_rules
from evscrub.domain.decisions import PENDING_DELETE, LocationRow
from evscrub.domain.image_report import Listed
from evscrub.registry.database import Database
from evscrub.registry.inventory import Inventory
from evscrub.stores.names import StoreNames

STANDARD_INPUT = "-"
#: No id is longer; a longer line is split, so that a binary file needs no more memory.
_LONGEST_LINE = 4096

Unreadable = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Selection:
    """Images to act on.

    :param words: what is selected, as a noun for messages; empty for images that were named.
    :param read: yields the ids, each time that it is called; calls its argument with the id of each
        image whose rows cannot be read.
    """

    words: str
    read: Callable[[Unreadable], Iterable[str]]

    def count(self) -> int:
        """Return the number of images, with those whose rows cannot be read."""
        unreadable: Counter[str] = Counter()
        number = sum(1 for _ in self.read(lambda _: unreadable.update(["images"])))
        return number + unreadable.total()


def add_arguments(parser: argparse.ArgumentParser, selected: str) -> None:
    """Add the arguments that select images.

    :param selected: the images that --owner and --store select, such as ``pending``.
    """
    parser.add_argument(
        "images", metavar="IMAGE", nargs="*", help="an image's id, in upper or lower case"
    )
    parser.add_argument(
        "--owner", type=name, help=f"all {selected} images of this owner, a project's id"
    )
    parser.add_argument(
        "--store",
        type=name,
        help=f"all {selected} images with a pending location in this store; with --owner, those of"
        " the owner",
    )
    parser.add_argument(
        "--file",
        type=name,
        metavar="FILE",
        help="the images whose ids are in this file, one in a line; - for standard input. Empty"
        " lines and lines that begin with # are skipped",
    )
    parser.add_argument(
        "-y",
        "--yes",
        action="store_true",
        help="do not ask before acting on what --owner, --store or --file select; needed without a"
        " terminal",
    )


def is_bulk(arguments: argparse.Namespace) -> bool:
    """Return whether images are selected in bulk, rather than named."""
    return bool(arguments.owner or arguments.store or arguments.file)


def refuse_wrong(arguments: argparse.Namespace) -> None:
    """Exit with code 2 if the arguments select nothing, contradict each other, or need --yes."""
    parser: argparse.ArgumentParser = arguments.subparser
    ways = [
        bool(arguments.images),
        bool(arguments.file),
        bool(arguments.owner or arguments.store),
    ]
    if sum(ways) != 1:
        problem = "several are given" if any(ways) else "none is given"
        parser.error(f"select images by IMAGE, by --file, or by --owner and --store: {problem}")
    if is_bulk(arguments) and not arguments.yes and not _has_terminal():
        parser.error("there is no terminal to ask for confirmation on: give --yes to act without")


@contextmanager
def selected(
    arguments: argparse.Namespace, database: Database, names: StoreNames, *, held: bool | None
) -> Iterator[Selection]:
    """Give the selected images to a block.

    :param held: whether --owner and --store select held images only, or those that are not held;
        None for both.
    :raises SystemExit: a file cannot be read, which is wrong usage.
    """
    if arguments.images:
        yield Selection("", lambda _: arguments.images)
    elif arguments.file:
        with TemporaryFile("w+", encoding="utf-8", errors="surrogateescape") as copy:
            try:
                _copy(arguments.file, copy)
            except OSError as error:
                problem = f"cannot read {arguments.file}: {error.strerror}"
                arguments.subparser.error(f"argument --file: {problem}")
            yield _from_copy(arguments.file, copy)
    else:
        yield _from_registry(arguments.owner, arguments.store, database, names, held=held)


#: Exit code for a store of which :func:`is_store` says no: wrong usage.
NO_SUCH_STORE = 2


def is_store(name: str, database: Database, names: StoreNames) -> bool:
    """Return whether a store is enabled here, or has data of an image that is to be scrubbed.

    Reads the whole registry if it is not enabled.
    """
    if name in names.names:
        return True
    inventory = Inventory(database, on_unreadable=lambda _: None)
    return any(names.of(row) == name for seen in inventory.read() for row in seen.locations)


def _from_registry(
    owner: str | None,
    store: str | None,
    database: Database,
    names: StoreNames,
    *,
    held: bool | None,
) -> Selection:
    words = f"{'held' if held else 'pending'} images"
    words += f" of owner {owner}" if owner else ""
    words += f" in store {store}" if store else ""
    words += " that are not held" if held is False else ""

    # To hold an image of another store does no harm; to miss one of this store loses its data.
    def stores_of(row: LocationRow) -> set[str]:
        return {names.of(row), *(names.candidates(row) if held is False else ())}

    def is_selected(seen: Listed) -> bool:
        is_held = hold_rules.deletion_time(seen.image, seen.locations) is None
        pending = [row for row in seen.locations if row.status == PENDING_DELETE]
        return (
            seen.image.status == PENDING_DELETE
            and (held is None or held == is_held)
            and (store is None or any(store in stores_of(row) for row in pending))
        )

    def read(on_unreadable: Unreadable) -> Iterator[str]:
        inventory = Inventory(database, on_unreadable=on_unreadable)
        for seen in inventory.read(owner=owner, held=bool(held)):
            if is_selected(seen):
                yield seen.image.id

    return Selection(words, read)


def _copy(path: str, copy: TextIO) -> None:
    """Copy the ids in a file, because standard input can be read only once.

    :raises OSError: the file cannot be read.
    """
    if path != STANDARD_INPUT:
        with Path(path).open(encoding="utf-8", errors="surrogateescape") as source:
            copy.writelines(f"{image_id}\n" for image_id in _ids(source))
    elif sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    else:
        copy.writelines(f"{image_id}\n" for image_id in _ids(sys.stdin))


def _from_copy(path: str, copy: TextIO) -> Selection:
    def read(_: Unreadable) -> Iterator[str]:
        copy.seek(0)
        return _ids(copy)

    where = "standard input" if path == STANDARD_INPUT else path
    return Selection(f"images named in {where}", read)


def _ids(source: TextIO) -> Iterator[str]:
    for line in iter(lambda: source.readline(_LONGEST_LINE), ""):
        image_id = line.strip()
        if image_id and not image_id.startswith("#"):
            yield image_id


def confirmed(question: str) -> bool:
    """Ask on the terminal; return whether the answer is yes."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _has_terminal() -> bool:
    streams: Sequence[TextIO | None] = (sys.stdin, sys.stderr)  # None if it is closed
    return all(stream is not None and stream.isatty() for stream in streams)
