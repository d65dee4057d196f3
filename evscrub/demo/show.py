# SPDX-License-Identifier: Apache-2.0
"""Display the demo while it runs: a live screen on a terminal, plain lines elsewhere."""

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from evscrub.demo.frame import Frame, lateness, size

_WIDEST = 100
_LINE_EVERY_SECONDS = 2.0
_HEIGHTS = "▁▂▃▄▅▆▇█"
_HEIGHTS_ASCII = ".:-=+*#@"


class Display(Protocol):
    """Displays the demo; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, frame: Frame) -> None:
        """Display the current state."""


def display_for(console: Console, title: str, horizon_seconds: float) -> Display:
    """Return a display that suits the console.

    :param title: a line that is always shown.
    :param horizon_seconds: the longest time until an image may fall due.
    """
    if console.is_terminal and not console.is_dumb_terminal:
        return Screen(console, title, horizon_seconds)
    return Lines(console, title)


class Lines:
    """Print a line when a new act begins, and one every few seconds."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._act = ""
        self._next = 0.0

    def __enter__(self) -> Self:
        self._print(self._title)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def show(self, frame: Frame) -> None:
        """Print a line if one is due."""
        if frame.act != self._act:
            self._act = frame.act
            self._print(f"{frame.seconds:5.1f} s  {frame.act}")
        elif frame.seconds < self._next:
            return
        else:
            self._print(f"{frame.seconds:5.1f} s    {_line(frame)}")
        self._next = frame.seconds + _LINE_EVERY_SECONDS

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _line(frame: Frame) -> str:
    if not frame.deleted:
        return f"uploaded {frame.uploaded}/{frame.images}"
    counts = {
        "deleted": f"{frame.deleted}/{frame.to_delete}",
        "unheard of": frame.unheard,
        "waiting": frame.waiting,
        "due": frame.due,
        "in work": frame.in_work,
        "scrubbed": frame.scrubbed,
    }
    said = "  ".join(f"{name} {count}" for name, count in counts.items())
    return f"{said}  late {lateness(frame.late)}".rstrip()


class Screen:
    """Redraw a few lines of a terminal in place, and remove them at the end."""

    def __init__(self, console: Console, title: str, horizon_seconds: float) -> None:
        self._console = console
        self._title = title
        self._horizon = horizon_seconds
        self._plain = console.options.ascii_only
        self._live = Live(
            console=console, auto_refresh=False, transient=True, vertical_overflow="crop"
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, frame: Frame) -> None:
        """Draw the current state."""
        self._live.update(self._draw(frame), refresh=True)

    def _draw(self, now: Frame) -> RenderableType:
        width = min(self._console.width, _WIDEST) - 2
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=10, no_wrap=True)
        grid.add_column(no_wrap=True, overflow="crop", width=max(20, width - 12))
        for name, count, style, note in self._states(now):
            number = Text.assemble(
                (f"{count:>5}", "bold" if count else "dim"), (f"   {note}", "dim")
            )
            grid.add_row(Text(name, style if count else "dim"), number)
        grid.add_row()
        for name, value in self._figures(now, max(20, width - 12)):
            grid.add_row(Text(name, "dim"), value)
        clock = f"{int(now.seconds) // 60}:{int(now.seconds) % 60:02}"
        act, title = Text(now.act, "bold"), Text(self._title, "dim")
        act.truncate(width - 6, overflow="ellipsis", pad=True)
        title.truncate(width, overflow="ellipsis")
        act.append(f"{clock:>6}", "not bold dim")
        lines = (Text(), act, title, Text(), self._bar(now, width), Text(), grid)
        return Padding(Group(*lines), (0, 0, 0, 1))

    def _states(self, now: Frame) -> list[tuple[str, int, str, str]]:
        uploaded = f"uploaded {now.uploaded} of {now.images} images" if not now.deleted else ""
        unheard = "deleted, and the agent does not know it yet" if now.unheard else ""
        return [
            ("to delete", now.to_delete - now.deleted, "white", uploaded),
            ("unheard of", now.unheard, "red", unheard),
            ("waiting", now.waiting, "blue", "deleted, data still kept"),
            ("due", now.due, "yellow", ""),
            ("in work", now.in_work, "magenta", ""),
            (
                "scrubbed",
                now.scrubbed,
                "green",
                f"{size(now.bytes_reclaimed)} of {size(now.bytes_to_reclaim)} reclaimed",
            ),
        ]

    def _figures(self, now: Frame, width: int) -> list[tuple[str, Text]]:
        ahead = f"in {self._horizon:.0f} s"
        axis = Text("now" + ahead.rjust(width - 3), "dim")
        owners = "   ".join(f"{name} {done}/{all_}" for name, (done, all_) in now.owners.items())
        return [
            ("falls due", Text(self._timeline(now.falls_due, width), "blue")),
            ("", axis),
            ("late by", Text(lateness(now.late))),
            ("rate", Text(f"{now.per_second:.1f} a second")),
            ("owners", Text(owners)),
        ]

    def _bar(self, now: Frame, width: int) -> Text:
        """Draw the states of the images to be deleted as one bar."""
        parts = [
            (now.scrubbed, "green", "█", "#"),
            (now.in_work, "magenta", "█", "W"),
            (now.due, "yellow", "▓", "D"),
            (now.waiting, "blue", "▒", "w"),
            (now.unheard, "red", "▒", "?"),
        ]
        bar, count, done = Text(), 0, 0
        for number, style, block, letter in parts:
            count += number
            until = min(width, round(count * width / max(1, now.to_delete)))
            bar.append((letter if self._plain else block) * (until - done), style)
            done = max(done, until)
        bar.append(("." if self._plain else "·") * (width - done), "dim")
        return bar

    def _timeline(self, falls_due: Sequence[float], width: int) -> str:
        counts = [0] * width
        for seconds in falls_due:
            column = int(seconds / self._horizon * width)
            if 0 <= column < width:
                counts[column] += 1
        heights = _HEIGHTS_ASCII if self._plain else _HEIGHTS
        highest = max(4, *counts)
        last = len(heights) - 1
        return "".join(heights[round(count / highest * last)] if count else " " for count in counts)
