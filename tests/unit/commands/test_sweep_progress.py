# SPDX-License-Identifier: Apache-2.0
"""The progress of a pass."""

from __future__ import annotations

import sys

import anyio
import pytest

from evscrub.commands import sweep_progress
from evscrub.single_pass.run import Progress

PROGRESS = Progress(images=250, size_bytes=3 << 30, total=1000, is_total_known=True, seconds=10.0)


def test_line() -> None:
    assert sweep_progress.in_line(PROGRESS) == (
        "scrubbed 250 of 1000 images, 3.0 GiB, 25.0/s, 30 s left"
    )


def test_line_before_the_total_is_known() -> None:
    early = Progress(0, 0, 40, is_total_known=False, seconds=0.0)
    assert sweep_progress.in_line(early) == "scrubbed 0 images, 0 B, 0.0/s"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.25, "0.2 s (1000.0/s)"), (125.0, "2 min 5 s (2.0/s)")]
)
def test_summary(seconds: float, said: str) -> None:
    done = Progress(250, 1024, 250, is_total_known=True, seconds=seconds)
    assert sweep_progress.summary(done) == f"Scrubbed 250 images, 1.0 KiB, in {said}."


class Gone:
    """A standard error whose reader has left."""

    def isatty(self) -> bool:
        return False

    def write(self, _text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def test_a_reader_that_leaves_does_not_end_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> bool:
        with anyio.move_on_after(0.2) as scope:
            await sweep_progress.show(lambda: PROGRESS)
        return scope.cancelled_caught

    monkeypatch.setattr(sweep_progress, "_LINE_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", Gone())
    assert anyio.run(main)
