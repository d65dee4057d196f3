# SPDX-License-Identifier: Apache-2.0
"""What tests of stores need."""

from __future__ import annotations

from functools import partial

import pytest

from evscrub.stores import backends, file_links, objects
from evscrub.stores.directories import Directories
from evscrub.stores.loading import StoreLoader


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait long for what is no test's matter: on a busy machine all of it may take seconds."""
    monkeypatch.setattr(backends, "StoreLoader", partial(StoreLoader, load_seconds=600.0))
    monkeypatch.setattr(objects, "Directories", partial(Directories, 60.0))
    # A directory whose first read took long is not left alone for a hundred times as long.
    monkeypatch.setattr(file_links, "_SHARE", 0)
