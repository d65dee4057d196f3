# SPDX-License-Identifier: Apache-2.0
"""Which files symbolic links lead to, on a real file system, with the clock in hand."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from evscrub.stores.directories import Bounded
from evscrub.stores.file_links import FileLinks
from tests.servers import wait_until


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x").touch()
    return tmp_path / "images"


def test_links_that_come_and_go(directory: Path, clock: Clock) -> None:
    links = FileLinks(clock=clock)
    path, directories = str(directory / "x"), [str(directory)]
    assert links.leads_to(path, directories) is False
    (directory / "link").symlink_to("x")
    clock.now += 1
    assert links.leads_to(path, directories) is True
    assert links.leads_to(str(directory / "link"), directories) is False
    assert links.leads_to(str(directory / "y"), directories) is False
    (directory / "link").unlink()
    clock.now += 1
    assert links.leads_to(path, directories) is False


def test_a_link_made_in_the_tick_of_the_last_look(directory: Path, clock: Clock) -> None:
    """Some file systems count seconds, others the ticks of the kernel."""
    before = directory.stat()
    links = FileLinks(clock=clock)
    path, directories = str(directory / "x"), [str(directory)]
    assert links.leads_to(path, directories) is False
    (directory / "link").symlink_to("x")
    os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.now += 1
    assert links.leads_to(path, directories) is True


def test_a_directory_that_does_not_change_is_read_twice(
    directory: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Mock(side_effect=os.scandir)
    monkeypatch.setattr("os.scandir", reads)
    links = FileLinks(clock=clock)
    for _ in range(10):
        assert links.leads_to(str(directory / "x"), [str(directory)]) is False
        clock.now += 1
    assert reads.call_count == 2


@pytest.mark.parametrize("target", ["x", "x/..", "loop", "/nowhere/x", "../images/x"])
def test_any_link_target(directory: Path, target: str) -> None:
    (directory / "loop").symlink_to("loop")
    (directory / "link").symlink_to(target)
    leads = FileLinks().leads_to(str(directory / "x"), [str(directory)])
    assert leads is (target in {"x", "../images/x"})


def test_missing_or_unreadable_directory_has_no_links(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FileLinks().leads_to(str(directory / "x"), [str(directory / "nowhere")]) is False
    (directory / "link").symlink_to("x")
    for call in ("os.readlink", "os.scandir"):
        monkeypatch.setattr(call, Mock(side_effect=PermissionError(errno.EACCES, "")))
        assert FileLinks().leads_to(str(directory / "x"), [str(directory)]) is False


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize("call", ["os.scandir", "os.readlink", "pathlib.Path.stat"])
def test_an_error_is_no_evidence_that_links_are_gone(
    directory: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    links, new = FileLinks(clock=clock), FileLinks(clock=clock)
    path, directories = str(directory / "x"), [str(directory)]
    (directory / "link").symlink_to("x")
    assert links.leads_to(path, directories) is True
    with monkeypatch.context() as failing:
        failing.setattr(call, Mock(side_effect=OSError(number, "")))
        for _ in range(3):
            clock.now += 10
            assert links.leads_to(path, directories) is True
            assert new.leads_to(path, directories) is None
    (directory / "link").unlink()
    clock.now += 10
    assert links.leads_to(path, directories) is False
    assert new.leads_to(path, directories) is False


def test_a_directory_is_read_rarely(directory: Path, clock: Clock) -> None:
    """Every delete changes it, so what a look costs says how often it is worth it."""
    links: Any = FileLinks(clock=clock)
    read = 0
    listed = links._list

    def count(path: str) -> object:
        nonlocal read
        read += 1
        (directory / f"new{read}").touch()
        found = listed(path)
        links._fresh_until[path] += 100 * 0.1  # as if it had taken so long
        return found

    links._read = Bounded(count, 10)
    for _ in range(1000):
        links.leads_to(str(directory / "x"), [str(directory)])
        clock.now += 0.1
    assert read == pytest.approx(100 / 11, abs=1)


def test_hanging_directory_delays_only_unknown_answers(
    directory: Path, tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "far").mkdir()
    links: Any = FileLinks(clock=clock)
    path, directories = str(directory / "x"), [str(directory), str(tmp_path / "far")]
    release = threading.Event()
    listed = links._list

    def read(name: str) -> object:
        hangs = name.endswith("far") and not release.is_set()
        return None if hangs else listed(name)

    links._read = read
    assert links.leads_to(path, directories) is None
    (directory / "link").symlink_to("x")
    clock.now += 1
    assert links.leads_to(path, directories) is True
    (directory / "link").unlink()
    release.set()
    clock.now += 5
    wait_until(lambda: links.leads_to(path, directories) is False, 30, "an answer")
    release.clear()
    clock.now += 60
    # What was seen last counts, and nobody waits for it each time.
    assert links.leads_to(path, directories) is False
    release.set()


def test_concurrent_callers_share_one_call() -> None:
    asked: list[str] = []
    release = threading.Event()

    def ask(path: str) -> str:
        asked.append(path)
        release.wait(60)
        return path

    look = Bounded(ask, 60)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(look, "a") for _ in range(8)]
        wait_until(lambda: bool(asked), 30, "a look")
        release.set()
        assert [answer.result(60) for answer in answers] == ["a"] * 8
