# SPDX-License-Identifier: Apache-2.0
"""Agents of one group on a store that counts; see `python -m tests.coordination --help`."""
