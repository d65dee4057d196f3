# SPDX-License-Identifier: Apache-2.0
"""An agent's status over HTTP: metrics, health, a status page, and requests to retry images.

:mod:`~evscrub.status.snapshot` reads the agent's parts, :mod:`~evscrub.status.registry_count`
counts pending images in the registry, :mod:`~evscrub.status.metrics` and
:mod:`~evscrub.status.view` format them, :mod:`~evscrub.status.service` routes requests,
:mod:`~evscrub.status.retry_route` accepts the only one that changes something,
:mod:`~evscrub.status.server` is the HTTP server, :mod:`~evscrub.status.client` is its client in
other processes, and :mod:`~evscrub.status.report` reads the status there.
"""
