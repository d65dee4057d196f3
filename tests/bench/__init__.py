# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: where evscrub stands between glance-scrubber and the bare limit.

``python -m tests.bench`` runs them; :mod:`tests.bench.__main__` says how.
"""
