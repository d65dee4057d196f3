# SPDX-License-Identifier: Apache-2.0
"""Audit notifications at the end of an agent."""

from __future__ import annotations

import logging
import threading
from typing import Any

import anyio
import anyio.lowlevel
import oslo_messaging
import pytest
from oslo_config import cfg

from evscrub.telemetry import audit
from evscrub.telemetry.audit import Audit
from evscrub.telemetry.statistics import Scrubbed


class FakeNotifier:
    """Keeps what is sent, or hangs."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.times: set[str] = set()
        self.open = threading.Event()
        self.open.set()

    def info(self, _context: object, _event_type: str, payload: Any) -> None:
        self.open.wait(30)
        self.sent.append(payload["id"])
        self.times.add(payload["scrubbed_at"])


#: No bus is away for so long; each try takes a second or more.
YEARS_SECONDS = 10 * 365 * 24 * 3600


@pytest.fixture
def notifier(monkeypatch: pytest.MonkeyPatch) -> FakeNotifier:
    fake = FakeNotifier()
    monkeypatch.setattr(oslo_messaging, "Notifier", lambda *_, **__: fake)
    return fake


def new_audit() -> Audit:
    conf = cfg.ConfigOpts()
    conf([], project="evscrub", default_config_files=[], default_config_dirs=[])
    return Audit(conf, lambda: 1_580_702_706.9)


async def run(made: Audit, images: int) -> None:
    with anyio.fail_after(60):
        await send(made, images)


async def send(made: Audit, images: int) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made.run)
        await anyio.lowlevel.checkpoint()
        for number in range(images):
            made.scrubbed(Scrubbed(str(number), "owner", 1, 0.0, data_went=True))
        await made.finish()


def test_what_waits_is_sent_before_the_end(
    notifier: FakeNotifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_FINISH_SECONDS", 30.0)
    made = new_audit()
    anyio.run(run, made, 50)
    assert notifier.sent == [str(number) for number in range(50)]
    assert notifier.times == {"2020-02-03T04:05:06Z"}
    assert made.lost == 0


def test_a_bus_that_hangs_does_not_hold_up_the_end(
    notifier: FakeNotifier, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit, "_FINISH_SECONDS", 0.1)
    notifier.open.clear()
    made = new_audit()
    caplog.set_level(logging.WARNING)
    try:
        anyio.run(run, made, 50)
        assert notifier.sent == []
    finally:
        notifier.open.set()
    assert "Lost 50 audit notifications" in caplog.text


def test_the_notifier_gives_nothing_up_while_the_bus_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It only logs what it gives up; below 0, it would do so without a connection."""
    retries: list[int] = []
    monkeypatch.setattr(oslo_messaging, "Notifier", lambda *_, retry, **__: retries.append(retry))
    anyio.run(run, new_audit(), 0)
    (tries,) = retries
    assert tries > YEARS_SECONDS
