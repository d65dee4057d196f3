# SPDX-License-Identifier: Apache-2.0
"""Standard output and error whose reader may go away, as head does when it has seen enough."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Write out what is printed within, and end it quietly where nobody reads it any more.

    What is printed after that goes nowhere, and the command goes on: what it does, and its exit
    code, do not depend on who listens.
    """
    try:
        yield
    except BrokenPipeError:
        if not silence():
            raise  # it was another pipe
    finally:
        silence()


def silence() -> bool:
    """Write out what is printed, and send it nowhere on each stream that nobody reads any more.

    :returns: whether there is such a stream.
    """
    left = False
    for stream in (sys.stdout, sys.stderr):
        with suppress(ValueError):  # it is closed
            with suppress(BrokenPipeError):
                stream.flush()
            if _has_no_reader(stream):
                left = True
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
                stream.flush()
    return left


def _has_no_reader(stream: TextIO) -> bool:
    try:
        number = stream.fileno()
    except OSError:  # it is no file, as in tests
        return False
    # Not by a write that fails: what failed may be dropped, and the next flush succeeds.
    poll = select.poll()
    poll.register(number, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
