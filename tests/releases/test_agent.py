# SPDX-License-Identifier: Apache-2.0
"""The agent: it scrubs what is due and never before, by events and by sweeps."""

from tests.functional.test_agent import (
    TestOneAgent,
    agent,
    site,
    test_image_deleted_without_delayed_delete_is_ignored,
    test_sweep_finds_an_image_whose_event_was_lost,
)

__all__ = [
    "TestOneAgent",
    "agent",
    "site",
    "test_image_deleted_without_delayed_delete_is_ignored",
    "test_sweep_finds_an_image_whose_event_was_lost",
]
