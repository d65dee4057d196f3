# SPDX-License-Identifier: Apache-2.0
"""Servers that are shared between the processes of a run of tests, or of a program."""

from __future__ import annotations

import atexit
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self

from tests import sharing

if TYPE_CHECKING:
    import pytest

steps: list[str] = []


class Server(AbstractContextManager["Server"]):
    def __enter__(self) -> Self:
        steps.append("started")
        return self

    def __exit__(self, *_: object) -> None:
        steps.append("stopped")


def test_a_program_that_runs_by_itself_owns_its_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `python -m tests.chaos`, where no run of pytest has opened any."""
    owner = sharing.Owner()
    stops: list[object] = []
    monkeypatch.setattr(sharing, "_owner", owner)
    monkeypatch.setattr(atexit, "register", stops.append)
    monkeypatch.delenv(sharing._ADDRESS, raising=False)
    assert sharing.shared(Server) is sharing.shared(Server)
    assert stops == [owner.close]
    owner.close()
    assert steps == ["started", "stopped"]
