# SPDX-License-Identifier: Apache-2.0
"""Restore, hold and release, beside Glance's own scrubber and purge."""

from tests.functional.test_holds import (
    site,
    test_a_held_image_is_left_by_agents_scrubber_and_purge,
    test_a_released_image_is_scrubbed_after_a_whole_delay,
    test_a_restored_image_is_whole_and_lives_on,
    test_an_image_that_glance_scrubber_restored_is_repaired,
)

__all__ = [
    "site",
    "test_a_held_image_is_left_by_agents_scrubber_and_purge",
    "test_a_released_image_is_scrubbed_after_a_whole_delay",
    "test_a_restored_image_is_whole_and_lives_on",
    "test_an_image_that_glance_scrubber_restored_is_repaired",
]
