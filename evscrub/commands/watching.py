# SPDX-License-Identifier: Apache-2.0
"""Repeat the output of a command until Ctrl-C: redraw a terminal, append to anything else."""

import argparse
import io
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Generic, TextIO, TypeVar

from evscrub.domain.refusals import CannotRunError
from evscrub.domain.words import count
from evscrub.telemetry import output
from evscrub.telemetry.redact import redact

R = TypeVar("R")

_LEAST_SECONDS, _MOST_SECONDS = 1, 86_400
#: Rows that are kept to draw a terminal again after a change of its size.
_MOST_ROWS = 500
#: Control sequences of ECMA-48 and, for the wrapping of long lines, of the VT100.
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_CUT_LINES, _WRAP_LINES = "\x1b[?7l", "\x1b[?7h"

Say = Callable[[str], None]
#: Waits, and calls its argument when the size of the terminal changes meanwhile.
_Pause = Callable[[Callable[[], None]], None]


def seconds(text: str) -> float:
    """Parse the interval of ``--watch``.

    :raises argparse.ArgumentTypeError: the text is not a number from 1 to 86400.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not _LEAST_SECONDS <= number <= _MOST_SECONDS:
        raise argparse.ArgumentTypeError(
            f"must be a number of seconds from {_LEAST_SECONDS} to {_MOST_SECONDS}, not {text!r}"
        )
    return number


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--watch``."""
    parser.add_argument(
        "--watch",
        type=seconds,
        metavar="SECONDS",
        help=f"repeat until Ctrl-C, after this pause, {_LEAST_SECONDS} to {_MOST_SECONDS}: a"
        " terminal is redrawn, with as many rows as it can show, and anything else is appended to",
    )


@dataclass(frozen=True)  # Python 3.11 cannot make a generic one with slots
class Source(Generic[R]):
    """The output to repeat.

    :param read: returns all rows; called with a function that takes messages about them.
    :param write: writes rows.
    :param noun: what a row is.
    :param separator: the line before each repetition that is appended, such as ``---`` in YAML;
        empty for none; None for the time.
    """

    read: Callable[[Say], Iterable[R]]
    write: Callable[[Iterable[R], TextIO], None]
    noun: str
    separator: str | None


@dataclass(frozen=True)  # Python 3.11 cannot make a generic one with slots
class _Frame(Generic[R]):
    """What a screen is drawn from.

    :param rows: the first rows, at most :data:`_MOST_ROWS`.
    :param total: the number of all rows.
    """

    rows: list[R]
    total: int
    notes: tuple[str, ...]
    at: str


def watch(source: Source[R], pause_seconds: float) -> int:
    """Repeat the output until Ctrl-C, or until its reader is gone; return the exit code.

    :raises CannotRunError: the first repetition failed; later ones show the error instead.
    """
    is_terminal = sys.stdout.isatty()
    with _signals() as signals:
        try:
            (_redraw if is_terminal else _append)(source, partial(_pause, signals, pause_seconds))
        except KeyboardInterrupt:
            sys.stdout.write("\n" if is_terminal else "")
    return 0


@contextmanager
def _signals() -> Iterator[int]:
    """Have Python write each signal's number to a pipe; yield the descriptor to read from.

    A signal that arrives just before a system call does not interrupt it, but the pipe tells of it.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    resized = signal.signal(signal.SIGWINCH, lambda *_: None)  # by default ignored, and not written
    before = signal.set_wakeup_fd(writer)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGWINCH, resized)
        os.close(reader)
        os.close(writer)


def _pause(signals: int, seconds: float, resized: Callable[[], None]) -> None:
    """Wait, and call `resized` whenever the size of the terminal changes meanwhile."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([signals], [], [], left)[0] and signal.SIGWINCH in os.read(signals, 100):
            resized()


def _append(source: Source[R], pause: _Pause) -> None:
    has_read = False
    while True:
        before = f"{_now()}:" if source.separator is None else source.separator
        try:
            sys.stdout.write(f"{before}\n" if before else "")
            source.write(source.read(output.say), sys.stdout)
            has_read = True
        except BrokenPipeError:
            output.silence()
            return
        except CannotRunError as error:
            if not has_read:
                raise
            output.say(_trying_again(error))
        if output.silence():
            return
        pause(lambda: None)


def _redraw(source: Source[R], pause: _Pause) -> None:
    sys.stdout.write("\n" * _height())  # what the terminal shows moves into its history
    frame: _Frame[R] | None = None
    while True:
        frame = _read_frame(source, frame)
        draw = partial(_draw, source, frame)
        draw()
        pause(draw)


def _read_frame(source: Source[R], last: _Frame[R] | None) -> _Frame[R]:
    notes: list[str] = []
    try:
        rows = iter(source.read(notes.append))
        first = list(islice(rows, _MOST_ROWS))
        total = len(first) + sum(1 for _ in rows)
    except CannotRunError as error:
        if last is None:
            raise
        return replace(last, notes=(_trying_again(error),))
    return _Frame(first, total, tuple(notes), _now())


def _draw(source: Source[R], frame: _Frame[R]) -> None:
    """Write one screen in one piece, with each line in one row of the terminal."""
    height = _height()
    text = io.StringIO()
    source.write(frame.rows[:height], text)
    lines = text.getvalue().splitlines()
    foot = [f"evscrub: {note}" for note in frame.notes]
    room = max(1, height - len(foot) - 2)  # a line for the head, and one for the cursor
    if frame.total > height or len(lines) > room:
        lines = [*lines[: room - 1], "(the terminal is too small for the rest)"]
    head = f"{count(frame.total, source.noun)} at {frame.at}, Ctrl-C ends"
    screen = [head, *lines, *foot][: height - 1]
    shown = "".join(f"{line}{_CLEAR_LINE}\n" for line in screen)
    sys.stdout.write(f"{_CUT_LINES}{_HOME}{shown}{_CLEAR_BELOW}{_WRAP_LINES}")
    sys.stdout.flush()


def _height() -> int:
    return os.get_terminal_size(sys.stdout.fileno()).lines


def _trying_again(error: CannotRunError) -> str:
    return f"{redact(str(error))}; trying again"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
