# SPDX-License-Identifier: Apache-2.0
"""How many examples a test by properties tries, as the profile in use asks for."""

from hypothesis import settings


def examples(number: int) -> int:
    """Return how many examples to try where the whole check tries `number`."""
    whole = settings.get_profile("evscrub").max_examples
    return max(1, number * settings().max_examples // whole)
