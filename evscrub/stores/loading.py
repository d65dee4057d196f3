# SPDX-License-Identifier: Apache-2.0
"""Load the drivers of the enabled stores, each separately.

glance_store loads all drivers in one call, which ends at the first that raises and hides the reason
of some failures. Here a store that cannot be used does not affect others, and its fault is
recorded. glance_store's own table of drivers contains only stores that can be used.
"""

import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress

from glance_store import backend, multi_backend
from glance_store import location as store_location
from glance_store.capabilities import BitMasks
from oslo_config import cfg
from stevedore.driver import DriverManager

from evscrub.domain import verdict
from evscrub.domain.object_identity import StoreConfig
from evscrub.stores import configs, faults, s3_clients, swift_accounts, swift_clients
from evscrub.stores.faults import Driver, Fault

#: How long to wait for drivers before the agent goes on without them. The rbd driver waits five
#: minutes for a cluster that is down.
LOAD_SECONDS = 10.0
_THREAD_NAME = "load of store "
_UNLINK_TIMEOUT = "filesystem_store_timeout"
#: Held during the import of a driver: if two overlap, each sees modules that are half imported.
_importing = threading.Lock()


def is_about_loading(record: logging.LogRecord) -> bool:
    """Return whether a record repeats why a driver cannot be used, as its store's fault says."""
    thread = record.threadName or ""
    return thread.startswith(_THREAD_NAME) and record.name.startswith("glance_store.")


class StoreLoader:
    """Loads stores, and records which cannot be used.

    :param conf: see :class:`evscrub.stores.backends.Stores`.
    :param acknowledged: returns the stores whose data is gone according to the operator; the
        driver creates their missing directories, as in Glance.
    :param load_seconds: how long to wait for all drivers together, but a tenth of it for each at
        least. After that a driver continues to load in its thread, and its store is used once it
        is loaded.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        acknowledged: Callable[[], Collection[str]],
        load_seconds: float = LOAD_SECONDS,
    ) -> None:
        self._conf = conf
        self._acknowledged = acknowledged
        self._load_seconds = load_seconds
        self._several: dict[str, str] = dict(conf.enabled_backends or {})
        module = multi_backend if self._several else backend
        # The options of a driver are registered when it is loaded. glance_store's public function
        # would import the drivers of all types for theirs, which takes 0.4 s and 20 MB.
        conf.register_opts(module._STORE_OPTS, group=configs.SINGLE_GROUP)  # noqa: SLF001 - see above
        #: The types of the enabled stores by name; the name of a single store is its type.
        self.enabled = self._several or {name: name for name in conf.glance_store.stores if name}
        self._threads: dict[str, threading.Thread] = {}
        # Written by the threads, one key each.
        self._faults: dict[str, Fault] = {}
        self._unusable: set[str] = set(self.enabled)
        # botocore would retry a throttled request four times without evscrub noticing.
        os.environ.setdefault("AWS_MAX_ATTEMPTS", "1")

    @property
    def faults(self) -> dict[str, Fault]:
        """Faults of the stores that cannot be used, by name."""
        return dict(self._faults)

    def fault_of_scheme(self, scheme: str) -> tuple[str, Fault] | None:
        """Return name and fault of an unusable store with URLs of this scheme, or None."""
        for name, fault in self.faults.items():
            if scheme in faults.schemes(self.enabled[name]):
                return name, fault
        return None

    def load(self) -> set[str]:
        """Load every store that cannot be used; blocks up to `load_seconds`, or a tenth for each.

        :returns: the stores that became usable since the last call.
        """
        until = time.monotonic() + self._load_seconds
        started = []
        for name in filter(self._unusable.__contains__, self.enabled):
            # One that has taken longer than it was waited for may be loaded by now.
            if name in self._faults or name not in self._threads:
                started.append(self._start(name))
                started[-1].join(self._load_seconds / 10)
        for thread in started:
            thread.join(max(0.0, until - time.monotonic()))
        before, self._unusable = self._unusable, set(self._faults)
        return before - self._unusable

    def configs(self) -> dict[str, StoreConfig]:
        """Return the configurations of the enabled stores, loaded or not, by name."""
        found = {}
        for name, kind in self.enabled.items():
            driver = self._driver(name)
            prefix = None if driver is None else driver.url_prefix
            group = name if self._several else configs.SINGLE_GROUP
            scheme = faults.schemes(kind)[0]
            found[name] = configs.read(self._conf, name, scheme, group, prefix)
        return found

    def reload(self, name: str) -> None:
        """Load a usable store again; if that fails, it keeps its current driver.

        Does nothing for drivers that glance_store configures at each delete.
        """
        driver = self._driver(name)
        if driver is not None and driver.is_capable(BitMasks.DRIVER_REUSABLE):
            self._load(name)

    def _driver(self, name: str) -> Driver:
        for scheme in faults.schemes(self.enabled.get(name, "")):
            if self._several:
                entry = store_location.SCHEME_TO_CLS_BACKEND_MAP.get(scheme, {}).get(name)
            else:
                entry = store_location.SCHEME_TO_CLS_MAP.get(scheme)
            if entry is not None:
                return entry["store"]
        return None

    def _start(self, name: str) -> threading.Thread:
        thread = self._threads.get(name)
        if thread is None or not thread.is_alive():
            self._faults.setdefault(
                name,
                Fault(
                    verdict.STORE_NOT_LOADED,
                    "its driver has not been loaded yet: check that its backend is reachable",
                ),
            )
            # A daemon thread, so that a driver that hangs does not keep the process from exiting.
            thread = threading.Thread(
                target=self._run, args=(name,), name=f"{_THREAD_NAME}{name}", daemon=True
            )
            self._threads[name] = thread
            thread.start()
        return thread

    def _run(self, name: str) -> None:
        fault = self._load(name)
        if fault is None:
            self._faults.pop(name, None)
        else:
            self._faults[name] = fault

    def _load(self, name: str) -> Fault | None:
        """Load a store's driver and register it with glance_store, or return a fault."""
        kind = self.enabled[name]
        group = f"[{name}] or [backend_defaults]" if self._several else "[glance_store]"
        where = f"{group} of glance-api.conf"
        if (fault := faults.reserved(name)) is not None:
            return fault
        driver: Driver = None
        try:
            driver = self._make(name, kind)
            may_be_missing = name in self._acknowledged()
            fault = faults.cannot_delete(driver, where) or faults.bad_directory(
                driver, where, may_be_missing=may_be_missing
            )
            if fault is not None:
                return fault
            driver.configure(re_raise_bsc=True)
            fault = faults.bad_client(driver, where)
            if fault is None:
                self._register(name, kind, driver)
        except Exception as error:  # noqa: BLE001 - drivers may raise anything
            _forget_module(kind)
            return faults.explain(error, kind, where, driver)
        return fault

    def _make(self, name: str, kind: str) -> Driver:
        arguments = (self._conf, name) if self._several else (self._conf,)
        driver = _import_driver(kind)
        group = name if self._several else configs.SINGLE_GROUP
        with suppress(cfg.DuplicateOptError):  # an earlier import of the module has them
            self._conf.register_opts(driver.OPTIONS or (), group=group)
        with suppress(cfg.NoSuchOptError, cfg.NoSuchGroupError):
            # With one, the file driver unlinks in a thread of its own, and an unlink that it gave
            # up happens whenever the file system goes on.
            self._conf.set_override(_UNLINK_TIMEOUT, 0, group=group)
        return driver(*arguments)

    def _register(self, name: str, kind: str, driver: Driver) -> None:
        entry = {
            "store": driver,
            "location_class": driver.get_store_location_class(),
            "store_entry": kind,
        }
        for scheme in driver.get_schemes():
            if self._several:
                store_location.register_scheme_backend_map({scheme: {name: entry}})
            else:
                store_location.register_scheme_map({scheme: entry})


def _import_driver(kind: str) -> Driver:
    """Return a driver's class, which shares its clients and separates its accounts."""
    with _importing:
        importlib.invalidate_caches()  # a missing module may have been installed
        driver: Driver = DriverManager(faults.NAMESPACE, kind).driver
        # Before it is created, because the swift driver reads accounts and options while it is.
        swift_accounts.separate()
        s3_clients.share()
        swift_clients.share()
    return driver


def _forget_module(kind: str) -> None:
    """Remove a driver from the imported modules if it was imported without its client library.

    Such a module remembers that the library is missing, even if it is installed later.
    """
    module = faults.driver_module(kind)
    if module is None or not faults.missing_modules(kind):
        return
    with _importing:
        for name in list(sys.modules):
            if name == module or name.startswith(f"{module}."):
                del sys.modules[name]
