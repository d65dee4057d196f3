# SPDX-License-Identifier: Apache-2.0
"""What an agent shows of itself over HTTP: metrics, health and a page for people. Read-only.

:mod:`~evscrub.status.sources` names what is looked at, :mod:`~evscrub.status.snapshot` looks,
:mod:`~evscrub.status.metrics` and :mod:`~evscrub.status.view` put it into words,
:mod:`~evscrub.status.routes` says what is where, and :mod:`~evscrub.status.server` talks to those
who ask.
"""
