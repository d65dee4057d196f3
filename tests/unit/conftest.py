# SPDX-License-Identifier: Apache-2.0
"""What unit tests need."""

from hypothesis import settings

# How long an example takes says how busy the machine is, nothing about the code.
settings.register_profile("evscrub", deadline=None)
settings.load_profile("evscrub")
