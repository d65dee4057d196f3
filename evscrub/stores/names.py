# SPDX-License-Identifier: Apache-2.0
"""Name the store of a location as the agents do, without loading a driver.

Loading one needs its client and makes its directory, which is too much for a command that only
reads the registry.
"""

from collections.abc import Mapping
from contextlib import suppress

from oslo_config import cfg

from evscrub.domain import location_crypt
from evscrub.domain.decisions import LocationRow

#: What is shown of a store that no row names and no URL tells.
UNKNOWN_STORE = "?"
#: The names by which schemes and former names of drivers differ from their types.
_TYPES = {
    "filesystem": "file",
    "https": "http",
    "vmware_datastore": "vmware",
    "vsphere": "vmware",
}
#: Former names of drivers are ``glance.store.s3.Store`` and the like.
_FORMER = "glance.store."


#: As glance_store has it, whose own comes with an attempt to load all its drivers.
_stores_opt = cfg.ListOpt("stores", default=["file", "http"])


class StoreNames:
    """Names stores.

    :param types: the enabled stores' types by name.
    :param key: ``metadata_encryption_key``.
    """

    def __init__(self, types: Mapping[str, str], key: str | None = None) -> None:
        self._key = key or ""
        self._by_type: dict[str, list[str]] = {}
        for name, driver in types.items():
            former = driver.startswith(_FORMER)
            plain = driver.removeprefix(_FORMER).partition(".")[0] if former else driver
            self._by_type.setdefault(_TYPES.get(plain, plain), []).append(name)

    def of(self, row: LocationRow) -> str:
        """Return the store that a row names, else the only one of its URL's type, else that type.

        Of a URL nothing but its type is shown.
        """
        if row.store is not None:
            return row.store
        try:
            scheme = location_crypt.decrypt_url(self._key, row.value).partition(":")[0]
        except ValueError:
            return UNKNOWN_STORE
        plain = scheme.partition("+")[0]
        driver = _TYPES.get(plain, plain)
        names = self._by_type.get(driver, [])
        return names[0] if len(names) == 1 else driver

    @property
    def names(self) -> list[str]:
        """The enabled stores."""
        return sorted(name for names in self._by_type.values() for name in names)


def store_names(conf: cfg.ConfigOpts) -> StoreNames:
    """Return the names of the stores that Glance's configuration enables."""
    with suppress(cfg.DuplicateOptError):  # glance_store has registered its own
        conf.register_opt(_stores_opt, "glance_store")
    types = dict(conf.enabled_backends or {}) or {name: name for name in conf.glance_store.stores}
    return StoreNames(types, conf.metadata_encryption_key)
