# SPDX-License-Identifier: Apache-2.0
"""``--watch``: what a terminal and what anything else is given, and how it ends."""

import argparse
import io
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

import pytest

from evscrub.commands import watching
from evscrub.commands.watching import Say, Source
from evscrub.config.loader import ConfigError
from evscrub.telemetry import output

PAUSE_SECONDS = 5.0
SELECT = select.select


class Screen(io.StringIO):
    """A terminal that keeps all that is written."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal
        self.height = 10

    def isatty(self) -> bool:
        return self.is_terminal

    @property
    def frames(self) -> list[list[str]]:
        """The lines of each screen that was drawn."""
        drawn = re.findall(r"\x1b\[\?7l\x1b\[H(.*?)\x1b\[J\x1b\[\?7h", self.getvalue(), re.DOTALL)
        return [text.replace("\x1b[K", "").splitlines() for text in drawn]


Start = Callable[..., Screen]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Return a function that watches until its events are over, and returns what was shown.

    Its events are what ends each pause: True for a change of the terminal's size, False for time.
    """

    def run(
        source: Source[str], events: Iterable[bool], *, is_terminal: bool, height: int = 10
    ) -> Screen:
        screen = Screen(is_terminal=is_terminal)
        left = iter(events)
        now = [0.0]

        def wait(signals: list[int], _: object, __: object, seconds: float) -> object:
            try:
                resized = next(left)
            except StopIteration:
                raise KeyboardInterrupt from None
            now[0] += 0.5 if resized else seconds
            if resized:
                signal.raise_signal(signal.SIGWINCH)
            return SELECT(signals, [], [], 0)

        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setattr(watching, "_height", lambda: height)
        monkeypatch.setattr(select, "select", wait)
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        assert watching.watch(source, PAUSE_SECONDS) == 0
        return screen

    return run


def source(read: Callable[[Say], Iterable[str]], separator: str | None = None) -> Source[str]:
    def write(rows: Iterable[str], stdout: TextIO) -> None:
        stdout.writelines(f"{row}\n" for row in rows)

    return Source(read, write, "image", separator)


def numbered(count: int) -> Callable[[Say], Iterator[str]]:
    passes = iter(range(1000))

    def read(_: Say) -> Iterator[str]:
        number = next(passes)
        yield from (f"pass {number} row {row}" for row in range(count))

    return read


def test_a_terminal_is_redrawn_after_each_pause(start: Start) -> None:
    screen = start(source(numbered(2)), [False, False], is_terminal=True)
    assert [frame[1:3] for frame in screen.frames] == [
        [f"pass {number} row 0", f"pass {number} row 1"] for number in range(3)
    ]
    assert all(frame[0].startswith("2 images at ") for frame in screen.frames)
    assert screen.getvalue().endswith("\n")


def test_a_change_of_the_terminal_s_size_redraws_without_reading(start: Start) -> None:
    screen = start(source(numbered(1)), [True, True, False], is_terminal=True)
    assert [frame[1] for frame in screen.frames] == [
        *["pass 0 row 0"] * 3,
        "pass 1 row 0",
    ]


@pytest.mark.parametrize("height", [1, 2, 3, 5, 24, 2000])
@pytest.mark.parametrize("count", [0, 3, 22, 1500])
def test_no_screen_scrolls(count: int, height: int, start: Start) -> None:
    screen = start(source(numbered(count)), [], is_terminal=True, height=height)
    (frame,) = screen.frames
    assert len(frame) <= max(0, height - 1)
    if height > 1:
        assert frame[0].startswith(f"{count} image")
    if 2 < height < count:
        assert frame[-1] == "(the terminal is too small for the rest)"
    elif height == 24:
        assert len(frame) == count + 1


def test_messages_stand_below_the_rows(start: Start) -> None:
    def read(say: Say) -> Iterator[str]:
        say("no agent answers")
        yield "a row"

    (frame,) = start(source(read), [], is_terminal=True).frames
    assert frame[1:] == ["a row", "evscrub: no agent answers"]


def failing(passes: Iterable[bool]) -> Callable[[Say], Iterator[str]]:
    """Return a reader that fails in some passes after its first row."""
    left = iter(passes)

    def read(_: Say) -> Iterator[str]:
        fails = next(left)
        yield "failing" if fails else "good"
        if fails:
            raise ConfigError("lost the connection to the database")

    return read


def test_a_terminal_keeps_the_last_rows_while_the_database_is_away(start: Start) -> None:
    read = source(failing([False, True, False]))
    frames = start(read, [False, False], is_terminal=True).frames
    told = "evscrub: lost the connection to the database; trying again"
    assert [frame[1:] for frame in frames] == [["good"], ["good", told], ["good"]]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_an_error_in_the_first_pass_ends_it(is_terminal: bool, start: Start) -> None:
    with pytest.raises(ConfigError):
        start(source(failing([True])), [], is_terminal=is_terminal)


def test_without_a_terminal_each_pass_is_appended(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    written = start(source(numbered(1), "---"), [False], is_terminal=False).getvalue()
    assert written == "---\npass 0 row 0\n---\npass 1 row 0\n"
    assert start(source(numbered(1), ""), [], is_terminal=False).getvalue() == "pass 0 row 0\n"
    timed = start(source(numbered(1)), [], is_terminal=False).getvalue()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ:\npass 0 row 0\n", timed)
    read = source(failing([False, True, False]), "")
    assert start(read, [False, False], is_terminal=False).getvalue() == "good\nfailing\ngood\n"
    assert capsys.readouterr().err == (
        "evscrub: lost the connection to the database; trying again\n"
    )


@pytest.mark.parametrize("is_terminal", [True, False])
def test_ctrl_c_ends_a_pause_that_it_does_not_interrupt(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does one that arrives just before the pause; here another thread gets the signal."""
    stat = Path(f"/proc/self/task/{threading.get_native_id()}/stat")
    pausing = threading.Event()
    pauses = iter([300.0])

    def wait(signals: list[int], _: object, __: object, seconds: float) -> object:
        pausing.set()
        return SELECT(signals, [], [], min(seconds, next(pauses)))

    def interrupt() -> None:
        pausing.wait()
        while stat.read_text().rpartition(")")[2].split()[0] != "S":
            pass
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    monkeypatch.setattr(sys, "stdout", Screen(is_terminal=is_terminal))
    monkeypatch.setattr(watching, "_height", lambda: 10)
    monkeypatch.setattr(select, "select", wait)
    thread = threading.Thread(target=interrupt)
    thread.start()
    began = time.monotonic()
    assert watching.watch(source(numbered(1)), 86_400) == 0
    thread.join()
    assert time.monotonic() - began < 300


def test_it_ends_when_its_reader_is_gone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "silence", lambda: True)
    forever = iter(lambda: False, None)
    assert start(source(numbered(1), ""), forever, is_terminal=False).getvalue() == (
        "pass 0 row 0\n"
    )


@pytest.mark.parametrize("text", ["", "x", "0", "0.5", "-1", "nan", "inf", "86401", "1e9", "1 h"])
def test_a_wrong_interval_is_wrong_usage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    watching.add_argument(parser)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args([f"--watch={text}"])
    assert caught.value.code == 2
    told = f"argument --watch: must be a number of seconds from 1 to 86400, not {text!r}"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("text", "seconds"), [("1", 1), ("2.5", 2.5), ("86400", 86_400)])
def test_an_interval(text: str, seconds: float) -> None:
    assert watching.seconds(text) == seconds
