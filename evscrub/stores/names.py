# SPDX-License-Identifier: Apache-2.0
"""Name the store of a location as the agents do, without loading a driver.

Loading a driver needs its client library and creates its directory, which a command that only reads
the registry must not do.
"""

from collections.abc import Mapping
from contextlib import suppress

from oslo_config import cfg

from evscrub.domain import location_crypt
from evscrub.domain.decisions import LocationRow

#: Shown for a location whose row names no store and whose URL cannot be decrypted.
UNKNOWN_STORE = "?"
#: Types of stores by the schemes and former driver names that differ from them.
_TYPES = {
    "filesystem": "file",
    "https": "http",
    "vmware_datastore": "vmware",
    "vsphere": "vmware",
}
#: Prefix of former driver names, such as ``glance.store.s3.Store``.
_FORMER = "glance.store."

#: A copy of glance_store's option, because reading its options loads all drivers.
_stores_opt = cfg.ListOpt("stores", default=["file", "http"])


class StoreNames:
    """Names the stores of locations.

    :param types: types of the enabled stores by name.
    :param key: ``metadata_encryption_key``, if set.
    """

    def __init__(self, types: Mapping[str, str], key: str | None = None) -> None:
        self._key = key or ""
        self._by_type: dict[str, list[str]] = {}
        for name, driver in types.items():
            former = driver.startswith(_FORMER)
            plain = driver.removeprefix(_FORMER).partition(".")[0] if former else driver
            self._by_type.setdefault(_TYPES.get(plain, plain), []).append(name)

    def of(self, row: LocationRow) -> str:
        """Return the name of a location's store.

        :returns: the store that the row names, else the only store of the URL's type, else that
            type; never another part of the URL.
        """
        found = self.candidates(row)
        return found[0] if len(found) == 1 else self._type_of(row)

    def candidates(self, row: LocationRow) -> list[str]:
        """Return the names of the stores that may have a location: one unless it names none.

        Agents tell several stores of a type apart by their directories, buckets and so on.
        """
        if row.store is not None:
            return [row.store]
        kind = self._type_of(row)
        return self._by_type.get(kind, [kind])

    def _type_of(self, row: LocationRow) -> str:
        """Return the type of the store that a location's URL is for."""
        try:
            scheme = location_crypt.decrypt_url(self._key, row.value).partition(":")[0]
        except ValueError:
            return UNKNOWN_STORE
        plain = scheme.partition("+")[0]
        return _TYPES.get(plain, plain)

    @property
    def names(self) -> list[str]:
        """Names of the enabled stores, sorted."""
        return sorted(name for names in self._by_type.values() for name in names)


def store_names(conf: cfg.ConfigOpts) -> StoreNames:
    """Return the names of the stores that Glance's configuration enables."""
    with suppress(cfg.DuplicateOptError):  # glance_store has registered it
        conf.register_opt(_stores_opt, "glance_store")
    types = dict(conf.enabled_backends or {}) or {name: name for name in conf.glance_store.stores}
    return StoreNames(types, conf.metadata_encryption_key)
