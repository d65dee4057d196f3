# SPDX-License-Identifier: Apache-2.0
"""The registry: Glance's database, which alone decides what may be scrubbed.

:mod:`~evscrub.registry.tables` declares the columns, :mod:`~evscrub.registry.database` connects,
:mod:`~evscrub.registry.claims` claims and settles, :mod:`~evscrub.registry.pages` reads for sweeps,
:mod:`~evscrub.registry.holds` restores, holds and releases images, and
:mod:`~evscrub.registry.inventory` lists them. All of these block: the event loop calls them through
:mod:`~evscrub.registry.gateway`, which runs them in threads.
"""
