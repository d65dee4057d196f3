# SPDX-License-Identifier: Apache-2.0
"""Load the stores of a pass, and name those of locations."""

from oslo_config import cfg

from evscrub.domain.decisions import LocationRow
from evscrub.domain.verdict import StoreNotUsableError
from evscrub.stores.backends import Stores
from evscrub.stores.names import StoreNames


def load_stores(conf: cfg.ConfigOpts, *, create: bool = True) -> Stores:
    """Load the enabled stores.

    :param create: whether the missing directories of acknowledged stores are created.
    :raises ValueError: no store is enabled.
    """
    options = conf.scrubber
    return Stores(
        conf,
        (lambda: options.acknowledged_stores) if create else frozenset,
        options.allowed_places,
        options.separate_stores,
    )


def store_of(stores: Stores, names: StoreNames, row: LocationRow) -> str:
    """Return the store that deletes a location, else what it is called where none does."""
    try:
        return stores.resolve(row).store
    except StoreNotUsableError:
        return names.of(row)
