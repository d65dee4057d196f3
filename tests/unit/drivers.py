# SPDX-License-Identifier: Apache-2.0
"""The real drivers of glance_store, as they read a URL, and the object that their delete removes.

A driver whose client is missing gets modules without content at the edge where it imports it: none
of them is used to read a URL.
"""

from __future__ import annotations

import importlib
import sys
import uuid
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from oslo_config import cfg

from evscrub.domain.object_identity import StoreConfig
from evscrub.stores import configs

#: What the stores are configured with, one store of each kind.
OPTIONS: dict[str, dict[str, Any]] = {
    "file": {"filesystem_store_datadir": "/images"},
    "s3": {"s3_store_host": "https://S3.Example:443", "s3_store_bucket": "glance"},
    "swift": {
        "swift_store_auth_address": "https://keystone.example/v3/",
        "swift_store_user": "service:glance",
        "swift_store_key": "secret",
        "swift_store_container": "glance",
        "default_swift_reference": "ref1",
    },
    "rbd": {"rbd_store_pool": "images"},
    "cinder": {},
    "vmware": {
        "vmware_server_host": "vc.example",
        "vmware_datastores": ["dc:ds"],
        "vmware_store_image_dir": "/openstack_glance",
    },
    "http": {},
}
_MODULES = {
    "file": "filesystem",
    "s3": "s3",
    "swift": "swift.store",
    "rbd": "rbd",
    "cinder": "cinder.store",
    "vmware": "vmware_datastore",
    "http": "http",
}
#: What each kind's delete uses of a location, as its code has it.
_OBJECTS: dict[str, Callable[[Any], Hashable]] = {
    "file": lambda location: location.path,
    "s3": lambda location: (location.bucket, location.key),
    "swift": lambda location: (
        location.container,
        location.obj,
        location.swift_url,
        location.user.split(":")[0],
    ),
    "rbd": lambda location: (location.pool or OPTIONS["rbd"]["rbd_store_pool"], location.image),
    "cinder": lambda location: uuid.UUID(location.volume_id),
    "vmware": lambda location: (
        location.datacenter_path,
        location.datastore_name,
        location.path[len("/folder") :],
    ),
    "http": lambda location: (location.netloc, location.path, location.query),
}


class _Missing(ModuleType):
    """A module in which everything is; its exceptions can be caught."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {})


class _Clients(MetaPathFinder, Loader):
    """Finds the modules of clients that are not installed."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name.partition(".")[0] not in {"cinderclient", "os_brick"}:
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Missing(spec.name)

    def exec_module(self, _module: ModuleType) -> None:
        pass


@contextmanager
def _with_clients() -> Iterator[None]:
    clients = _Clients()
    sys.meta_path.append(clients)
    before = set(sys.modules)
    try:
        yield
    finally:
        sys.meta_path.remove(clients)
        # Nothing else is to find them, nor the driver that was imported with them.
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in {"cinderclient", "os_brick"} or "cinder" in name:
                del sys.modules[name]


@cache
def module(kind: str) -> Any:
    """Return a kind's driver."""
    name = f"glance_store._drivers.{_MODULES[kind]}"
    if kind != "cinder":
        return importlib.import_module(name)
    with _with_clients():
        return importlib.import_module(name)


@cache
def conf() -> cfg.ConfigOpts:
    """Return a configuration of one store of each kind."""
    made = cfg.ConfigOpts()
    for kind, values in OPTIONS.items():
        driver = module(kind)
        made.register_opts(driver.Store.OPTIONS or [], group="glance_store")
        for name, value in values.items():
            made.set_override(name, value, group="glance_store")
    made([], default_config_files=[], default_config_dirs=[])
    return made


@cache
def config(kind: str) -> StoreConfig:
    """Return what evscrub reads of a kind's configuration."""
    return configs.read(conf(), kind, kind, "glance_store", None)


def object_of(kind: str, url: str) -> Hashable | None:
    """Return what the driver's delete removes; None if the driver refuses the URL."""
    location = module(kind).StoreLocation({}, conf())
    try:
        location.parse_uri(url)
        return _OBJECTS[kind](location)
    except Exception:  # noqa: BLE001 - drivers also let through what Python raises
        return None
