# SPDX-License-Identifier: Apache-2.0
"""The agent on PostgreSQL, in one case: the events are lost and the sweep finds the images."""

import pytest

from tests.functional.test_agent import site, test_lost_event_is_found_by_the_sweep

__all__ = ["site", "test_lost_event_is_found_by_the_sweep"]


@pytest.fixture(scope="module")
def backend() -> str:
    """Return the kind of database."""
    return "postgresql"
