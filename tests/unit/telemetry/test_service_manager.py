# SPDX-License-Identifier: Apache-2.0
"""Reports to a service manager that cannot be made."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from evscrub.telemetry.service_manager import ServiceManager


def test_states_are_sent(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address)
        ServiceManager({"NOTIFY_SOCKET": address}).tell("READY=1", "STATUS=x")
        assert server.recv(100) == b"READY=1\nSTATUS=x"


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_process_without_a_free_file_descriptor_goes_on(
    error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(error, "no socket")

    monkeypatch.setattr(socket, "socket", fail)
    ServiceManager({"NOTIFY_SOCKET": "/run/notify"}).tell("WATCHDOG=1")


def test_nobody_listens(tmp_path: Path) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "none")}).tell("WATCHDOG=1")
