# SPDX-License-Identifier: Apache-2.0
"""Restore, hold and release, beside Glance's own scrubber and purge."""

from tests.functional.test_holds import (
    site,
    test_held_image_is_ignored_by_agents_scrubber_and_purge,
    test_image_restored_by_glance_scrubber_is_repaired,
    test_released_image_is_scrubbed_after_a_whole_delay,
    test_restored_image_is_complete_and_usable,
)

__all__ = [
    "site",
    "test_held_image_is_ignored_by_agents_scrubber_and_purge",
    "test_image_restored_by_glance_scrubber_is_repaired",
    "test_released_image_is_scrubbed_after_a_whole_delay",
    "test_restored_image_is_complete_and_usable",
]
