# SPDX-License-Identifier: Apache-2.0
"""The registry: Glance's database, the truth about what may be scrubbed.

:mod:`~evscrub.registry.tables` names the columns, :mod:`~evscrub.registry.database` connects,
:mod:`~evscrub.registry.claims` claims and settles, :mod:`~evscrub.registry.pages` reads for sweeps.
All of it blocks: call it in a worker thread.
"""
