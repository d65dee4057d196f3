# SPDX-License-Identifier: Apache-2.0
"""Where a command logs what a person changes."""

from __future__ import annotations

import logging
import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from oslo_log.handlers import OSSysLogHandler

from evscrub.commands import operator_log
from evscrub.config import loader
from evscrub.telemetry import log_redaction

LOG = logging.getLogger("evscrub.tests")

pytestmark = pytest.mark.usefixtures("global_configuration")


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where syslog listens, as a file that is there."""
    path = tmp_path / "syslog"
    path.touch()
    monkeypatch.setattr(operator_log, "_SYSLOG", path)
    return path


def start(tmp_path: Path, *lines: str, debug: bool = False) -> loader.OwnOptions:
    config = tmp_path / "evscrub.conf"
    config.write_text("\n".join(["[DEFAULT]", "glance_config_files = none", *lines]))
    _, own = loader.load([str(config)])
    operator_log.start(own, debug=debug)
    LOG.info("something was done")
    return own


def has_syslog() -> bool:
    return any(isinstance(handler, OSSysLogHandler) for handler in log_redaction.handlers())


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return "".join(capsys.readouterr())


@pytest.mark.parametrize("rotation", ["none", "size", "interval"])
@pytest.mark.parametrize("named", ["log_file", "log_dir", "both"])
def test_log_of_the_agent_is_appended_to(
    tmp_path: Path, named: str, rotation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "evscrub.log"
    log.write_text("before\n")
    lines = {
        "log_file": [f"log_file = {log}"],
        "log_dir": [f"log_dir = {tmp_path}"],
        "both": [f"log_dir = {tmp_path}", "log_file = evscrub.log"],
    }[named]
    if named == "log_dir" and Path(sys.argv[0]).name != "evscrub":
        # oslo.log names the file after the program.
        lines.append("log_file = evscrub.log")
    hook = sys.excepthook
    start(tmp_path, *lines, f"log_rotation_type = {rotation}", "use_stderr = true")
    first, last = log.read_text().splitlines()
    assert first == "before"
    assert last.endswith("something was done")
    assert shown(capsys) == ""
    assert not has_syslog()
    assert sys.excepthook is hook
    assert not any(
        isinstance(handler, logging.handlers.BaseRotatingHandler)
        for handler in log_redaction.handlers()
    )


@pytest.mark.parametrize("lines", [(), ("use_stderr = true",), ("log_file = {}/none.log",)])
def test_syslog_is_used_where_no_log_is(
    tmp_path: Path, lines: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    start(tmp_path, *(line.format(tmp_path) for line in lines))
    assert has_syslog()
    assert shown(capsys) == ""
    assert not (tmp_path / "none.log").exists()  # the agent might not be able to write to it


@pytest.mark.parametrize(
    "lines", [(), ("log_file = {}/none.log",), ("log_file = {}",), ("use_journal = true",)]
)
def test_change_that_is_in_no_log_is_told(
    tmp_path: Path, syslog: Path, lines: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    syslog.unlink()
    start(tmp_path, *(line.format(tmp_path) for line in lines))
    said = shown(capsys).splitlines()[-1]
    assert said.startswith(f"evscrub: the change is in no log: there is no {syslog}; ")
    assert "log_file" in said


def test_syslog_is_not_missed_where_there_is_a_log_file(
    tmp_path: Path, syslog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    syslog.unlink()
    (tmp_path / "evscrub.log").touch()
    start(tmp_path, f"log_file = {tmp_path}/evscrub.log")
    assert shown(capsys) == ""


def test_log_that_cannot_be_used_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(tmp_path, f"log_file = {tmp_path}")
    said = shown(capsys)
    assert said.startswith("evscrub: logging cannot be set up: ")
    assert "log_file in " in said
    assert said.endswith("logging to syslog instead\n")
    assert len(said.splitlines()) == 1
    assert has_syslog()


def test_debug_logs_to_the_terminal_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(tmp_path, debug=True)
    assert "something was done" in capsys.readouterr().err


class TestWho:
    def test_it_is_the_user_and_the_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SUDO_USER", raising=False)
        monkeypatch.setenv("USER", "somebody-else")
        assert operator_log.who() == (pwd.getpwuid(os.getuid()).pw_name, os.uname().nodename)

    def test_who_is_behind_sudo_is_told_and_quoted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SUDO_USER", "alice\nImage x held")
        assert operator_log.who()[0].endswith(" (sudo by 'alice\\nImage x held')")

    def test_user_without_a_name_has_a_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SUDO_USER", raising=False)
        monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
        assert operator_log.who()[0] == "user 4000000000"
