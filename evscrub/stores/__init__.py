# SPDX-License-Identifier: Apache-2.0
"""Access Glance's stores through glance_store.

:mod:`~evscrub.stores.backends` deletes and looks up data, :mod:`~evscrub.stores.loading` loads the
drivers, and :mod:`~evscrub.stores.objects` identifies the object of a location.
"""
