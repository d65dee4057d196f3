# SPDX-License-Identifier: Apache-2.0
"""A single pass over the registry, and its rehearsal."""
