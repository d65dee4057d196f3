# SPDX-License-Identifier: Apache-2.0
"""Handle a reader of standard output or error that goes away, as ``head`` does."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO


def open_closed() -> None:
    """Open standard streams that are closed on the null device, as a file opened later would be.

    Standard input stays closed for those that read it, so that it is not taken for an empty one.
    """
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - stays open


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Flush what the block prints, and ignore that a reader has gone away.

    Further output is discarded and the command continues, so neither its work nor its exit code
    depends on the reader.

    :raises BrokenPipeError: another pipe than standard output or error broke.
    """
    try:
        yield
    except BrokenPipeError:
        if not silence():
            raise  # another pipe broke
    finally:
        silence()


def say(message: str) -> None:
    """Print a message to the user on standard error; without a reader, discard it."""
    with suppress(BrokenPipeError):
        print(f"evscrub: {message}", file=sys.stderr)  # noqa: T201 - for the user
    _silence(sys.stderr)


def silence() -> bool:
    """Flush standard output and error, and redirect those without a reader to the null device.

    :returns: whether a stream has lost its reader.
    """
    return sum(map(_silence, (sys.stdout, sys.stderr))) > 0


def _silence(stream: TextIO) -> bool:
    with suppress(ValueError):  # it is closed
        with suppress(BrokenPipeError):
            stream.flush()
        if _has_no_reader(stream):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            stream.flush()
            return True
    return False


def _has_no_reader(stream: TextIO) -> bool:
    try:
        number = stream.fileno()
    except OSError:  # not a file, as in tests
        return False
    # A failed write would not show it: the data may be dropped, and the next flush succeeds.
    poll = select.poll()
    poll.register(number, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
