# SPDX-License-Identifier: Apache-2.0
"""The stores of a Glance, reached through glance_store.

:mod:`~evscrub.stores.backends` deletes and looks for data, :mod:`~evscrub.stores.loading` loads the
drivers, :mod:`~evscrub.stores.objects` tells whose data a location names.
"""
