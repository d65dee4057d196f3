# SPDX-License-Identifier: Apache-2.0
"""Show the progress of a pass: one line that is updated on a terminal, else a line at a time."""

import sys
from collections.abc import Callable
from contextlib import suppress

import anyio

from evscrub.domain.words import count, in_units, in_words
from evscrub.single_pass.run import Progress

_TERMINAL_SECONDS = 0.5
_EXACT_SECONDS = 10.0
#: Few lines, because cron mails them.
_LINE_SECONDS = 60.0


def in_line(progress: Progress) -> str:
    """Format progress as one line."""
    of_total = f" of {progress.total}" if progress.is_total_known else ""
    rate = progress.images / progress.seconds if progress.seconds > 0 else 0.0
    parts = [
        f"scrubbed {progress.images}{of_total} images",
        in_units(progress.size_bytes),
        f"{rate:.1f}/s",
    ]
    left = progress.total - progress.images
    if progress.is_total_known and rate > 0 and left > 0:
        parts.append(f"{in_words(max(1, round(left / rate)))} left")
    return ", ".join(parts)


def summary(progress: Progress) -> str:
    """Format the result of a pass as a sentence."""
    seconds = max(progress.seconds, 0.1)
    took = f"{seconds:.1f} s" if seconds < _EXACT_SECONDS else in_words(round(seconds))
    return (
        f"Scrubbed {count(progress.images, 'image')}, {in_units(progress.size_bytes)}, in"
        f" {took} ({progress.images / seconds:.1f}/s)."
    )


async def show(progress: Callable[[], Progress]) -> None:
    """Show progress on standard error until cancelled; a reader that leaves ends nothing."""
    with suppress(OSError, ValueError):
        await _show(progress)
    await anyio.sleep_forever()


async def _show(progress: Callable[[], Progress]) -> None:
    if not sys.stderr.isatty():
        while True:
            await anyio.sleep(_LINE_SECONDS)
            _print(progress())
    try:
        from rich.console import Console  # noqa: PLC0415 - needed by the demo alone
    except ImportError:
        while True:
            await anyio.sleep(_LINE_SECONDS / 10)
            _print(progress())
    with Console(stderr=True).status(in_line(progress())) as line:
        while True:
            await anyio.sleep(_TERMINAL_SECONDS)
            line.update(in_line(progress()))


def _print(progress: Progress) -> None:
    print(f"evscrub: {in_line(progress)}", file=sys.stderr, flush=True)
