# SPDX-License-Identifier: Apache-2.0
"""The agent: it scrubs what is due and never before, by events and by sweeps."""

from tests.functional.test_agent import (
    TestOneAgent,
    agent,
    site,
    test_deleted_without_delayed_delete,
    test_lost_event_is_found_by_the_sweep,
)

__all__ = [
    "TestOneAgent",
    "agent",
    "site",
    "test_deleted_without_delayed_delete",
    "test_lost_event_is_found_by_the_sweep",
]
