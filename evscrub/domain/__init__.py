# SPDX-License-Identifier: Apache-2.0
"""Decisions and rules without I/O, which import nothing else of evscrub.

:mod:`~evscrub.domain.decisions` says what may be scrubbed, :mod:`~evscrub.domain.verdict` what a
store's answer means, :mod:`~evscrub.domain.proof` what is gone where data is missing,
:mod:`~evscrub.domain.retry_policy` when to try again, :mod:`~evscrub.domain.hold_rules` what an
operator may hold, release and restore.
"""
