# SPDX-License-Identifier: Apache-2.0
"""What evscrub relies on in Glance: its events and the rows that a DELETE leaves."""

import subprocess
from pathlib import Path

from tests.functional.test_glance_facts import (
    bus,
    client,
    registry,
    server,
    test_delete_leaves_rows_pending_and_data_in_place,
    test_delete_notifies_after_its_commit,
    test_location_removed_from_a_live_image_is_pending_without_an_event,
)
from tests.glance_process import GlanceProcess
from tests.releases.environments import Release

__all__ = [
    "bus",
    "client",
    "registry",
    "server",
    "test_delete_leaves_rows_pending_and_data_in_place",
    "test_delete_notifies_after_its_commit",
    "test_location_removed_from_a_live_image_is_pending_without_an_event",
]


def test_the_server_is_of_the_release(server: GlanceProcess, release: Release) -> None:
    """The process that answers runs in the release's environment, which has its Glance."""
    command = Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
    assert command[0] == str(release.python)
    ask = "import importlib.metadata; print(importlib.metadata.version('glance'))"
    done = subprocess.run([release.python, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == release.version
