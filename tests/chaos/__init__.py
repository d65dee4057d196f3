# SPDX-License-Identifier: Apache-2.0
"""Several agents and a glance-scrubber under seeded faults; see `python -m tests.chaos --help`."""
