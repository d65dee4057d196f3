# SPDX-License-Identifier: Apache-2.0
"""What tests of commands need."""

from __future__ import annotations

import pytest

from evscrub.status import client


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait long for the agents of tests: a busy machine lets them answer late."""
    for name in ("_SECONDS", "_DOCUMENT_SECONDS"):
        monkeypatch.setattr(client, name, 60.0)
