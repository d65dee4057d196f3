# SPDX-License-Identifier: Apache-2.0
"""An agent's status over HTTP: metrics, health and a status page. Read-only.

:mod:`~evscrub.status.snapshot` reads the agent's parts, :mod:`~evscrub.status.registry_count`
counts pending images in the registry, :mod:`~evscrub.status.metrics` and
:mod:`~evscrub.status.view` format them, :mod:`~evscrub.status.service` routes requests,
:mod:`~evscrub.status.server` is the HTTP server, and :mod:`~evscrub.status.client` is its client in
other processes.
"""
