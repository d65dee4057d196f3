# SPDX-License-Identifier: Apache-2.0
"""Decisions and rules without I/O; this package imports nothing else of evscrub.

:mod:`~evscrub.domain.decisions` decides what may be scrubbed, :mod:`~evscrub.domain.verdict` what
the answer of a store means, :mod:`~evscrub.domain.proof` whether missing data is gone,
:mod:`~evscrub.domain.retry_policy` when to retry, and :mod:`~evscrub.domain.hold_rules` what an
operator may hold, release and restore.
"""
