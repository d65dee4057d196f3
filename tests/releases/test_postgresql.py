# SPDX-License-Identifier: Apache-2.0
"""The agent on PostgreSQL, in one case: the events are lost and the sweep finds the images."""

import pytest

from tests.functional.test_agent import site, test_sweep_finds_an_image_whose_event_was_lost

__all__ = ["site", "test_sweep_finds_an_image_whose_event_was_lost"]


@pytest.fixture(scope="module")
def backend() -> str:
    """Return the kind of database."""
    return "postgresql"
