# SPDX-License-Identifier: Apache-2.0
"""An agent's status over HTTP: metrics, health and a page for people. Read-only.

:mod:`~evscrub.status.snapshot` reads the agent's parts, :mod:`~evscrub.status.registry_count` asks
the registry what is pending, :mod:`~evscrub.status.metrics` and :mod:`~evscrub.status.view` put it
into words, :mod:`~evscrub.status.service` answers each path, :mod:`~evscrub.status.server` speaks
HTTP, and :mod:`~evscrub.status.client` asks another agent.
"""
