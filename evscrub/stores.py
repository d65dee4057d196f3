# SPDX-License-Identifier: Apache-2.0
"""The stores of this Glance, through glance_store, single-store and multi-store alike.

glance_store keeps its drivers and their configuration in module globals around ``cfg.CONF``; this
is the one module that touches them. A location's store is always resolved here first:
glance_store itself would ask one store after another and call the data gone when none has it.
"""

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import glance_store
from glance_store import location as store_location
from glance_store.exceptions import NotFound
from oslo_config import cfg
from oslo_log import log as logging

from evscrub import location_crypt, store_configs, verdict
from evscrub.file_links import FileLinks
from evscrub.location_urls import BadUrlError, file_path, index_key, tidy_key
from evscrub.object_identity import Identity, Relation, StoreConfig
from evscrub.rules import LocationRow
from evscrub.store_objects import StoreObjects
from evscrub.verdict import StoreNotUsableError, Verdict

LOG = logging.getLogger(__name__)

_FILE_SCHEMES = frozenset({"file", "filesystem"})


@dataclass(frozen=True, slots=True)
class Target:
    """A location whose store is known. Its URL is never shown.

    :param key: equal for locations of one object.
    """

    store: str
    url: str
    scheme: str
    key: str = field(default="", compare=False)

    def __repr__(self) -> str:
        return f"<{self.scheme} location in {self.store}>"


class Stores:
    """Loads the enabled stores and deletes from them.

    :param conf: Glance's configuration with evscrub's on top; must be the global ``cfg.CONF``,
        because that is what glance_store reads.
    :param allowed_places: further places of stores; see :mod:`evscrub.store_places`.
    :param separate_stores: stores that are known to have no object in common.
    :raises ValueError: no store could be loaded.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        allowed_places: Iterable[str] = (),
        separate_stores: Iterable[str] = (),
    ) -> None:
        self._conf = conf
        self._key: str | None = conf.metadata_encryption_key
        self._multiple: dict[str, str] = dict(conf.enabled_backends or {})
        if self._multiple:
            glance_store.register_store_opts(conf)
        else:
            glance_store.register_opts(conf)
        #: File stores whose directory was missing at start, and which; the driver makes it anew,
        #: so this is the last time that an unmounted one can be told.
        self.missing_directories = self._find_missing_directories()
        self._links = FileLinks()
        self.objects = StoreObjects({}, allowed_places, separate_stores)
        self.load()
        for directory in self.missing_directories.values():
            # What is mended by putting the right one there should find the place free.
            with contextlib.suppress(OSError):
                Path(directory).rmdir()

    def load(self) -> None:
        """Load the drivers, or load them again after a store lost its write access.

        :raises ValueError: no store could be loaded.
        """
        # botocore would repeat a throttled request four times by itself, out of our sight.
        os.environ.setdefault("AWS_MAX_ATTEMPTS", "1")
        if self._multiple:
            count = glance_store.create_multi_stores(self._conf)
        else:
            count = glance_store.create_stores(self._conf)
        _share_s3_sessions()
        self.objects.configs = self._read_configs()
        if not count:
            raise ValueError(
                "no store of Glance could be loaded: see the warnings above, [glance_store] stores"
                " and [DEFAULT] enabled_backends in glance-api.conf"
            )

    @property
    def deletable(self) -> list[str]:
        """The stores that are loaded and not read-only by nature."""
        schemes = store_location.SCHEME_TO_CLS_BACKEND_MAP
        read_only = {"http"} | set(schemes.get("http", {}))
        return [name for name in self.names if name not in read_only]

    @property
    def names(self) -> list[str]:
        """The stores that are loaded."""
        if self._multiple:
            loaded: set[str] = set().union(*store_location.SCHEME_TO_CLS_BACKEND_MAP.values())
            return sorted(loaded & set(self._multiple))
        entries = {info["store_entry"] for info in store_location.SCHEME_TO_CLS_MAP.values()}
        return sorted(entries)

    def resolve(self, row: LocationRow) -> Target:
        """Find the store that a location is in.

        :raises StoreNotUsableError: none, or more than one, is configured here that fits.
        """
        url = self.url(row)
        scheme = url.partition(":")[0]
        store = (
            self._resolve_multiple(row.store, url, scheme)
            if self._multiple
            else self._resolve_single(row.store, scheme)
        )
        self.objects.check(store, url)
        return Target(store, url, scheme, index_key(url))

    def index_key(self, value: str) -> str:
        """Return a text that is equal for all locations of one object, and rarely for others.

        :param value: a location's, as the registry has it.
        :raises StoreNotUsableError: it cannot be decrypted, or no object can be told from it.
        """
        key = tidy_key(value)
        if key is not None:
            return key
        try:
            return index_key(self._clear(value))
        except BadUrlError as error:
            raise StoreNotUsableError(verdict.BAD_URL, str(error)) from None

    def identify(self, row: LocationRow) -> Identity:
        """Return a location's object, whether or not its store is known.

        :raises StoreNotUsableError: it cannot be decrypted, or no object can be told from it.
        """
        url = self.url(row)
        scheme = url.partition(":")[0]
        try:
            if self._multiple:
                store: str | None = self._resolve_multiple(row.store, url, scheme)
            else:
                store = self._resolve_single(row.store, scheme)
        except StoreNotUsableError:
            store = row.store if self._multiple else None
        return self.objects.identify(store, url)

    def relate(self, one: Identity, other: Identity) -> Relation:
        """Say whether two locations are of the same object."""
        return self.objects.relate(one, other)

    def are_same(self, one: Target, other: Target) -> bool:
        """Whether two locations are surely of the same object."""
        identities = (self.objects.identify(target.store, target.url) for target in (one, other))
        return self.objects.relate(*identities) is Relation.SAME

    def url(self, row: LocationRow) -> str:
        """The location's URL in the clear.

        :raises StoreNotUsableError: it cannot be decrypted.
        """
        return self._clear(row.value)

    def _clear(self, value: str) -> str:
        if location_crypt.is_url(value):
            return value
        try:
            return location_crypt.decrypt_url(self._key or "", value)
        except ValueError:
            pass
        raise StoreNotUsableError(
            verdict.UNDECIPHERABLE,
            "the location cannot be decrypted: is [DEFAULT] metadata_encryption_key Glance's?",
        )

    def delete(self, target: Target) -> Verdict:
        """Delete a location's data; blocks for as long as the driver does.

        :returns: the verdict on whatever the driver did; nothing is raised.
        """
        kept = self._is_linked(target) if target.scheme in _FILE_SCHEMES else None
        if kept is not None:
            return kept
        try:
            if self._multiple:
                glance_store.delete(target.url, target.store)
            else:
                glance_store.delete_from_backend(target.url)
        except Exception as error:  # noqa: BLE001 - drivers raise what their clients do
            not_mounted = _judge_directory(target) if isinstance(error, NotFound) else None
            return not_mounted or verdict.judge(error, target.scheme)
        return verdict.judge(None, target.scheme)

    def _is_linked(self, target: Target) -> Verdict | None:
        """Look whether another file's data goes with a file; None if it does not."""
        try:
            path = file_path(target.url)
        except BadUrlError as error:
            return Verdict(verdict.Outcome.CONFIGURATION, verdict.BAD_URL, str(error))
        linked = self._links.leads_to(path, self.objects.file_directories)
        if linked is None:
            return verdict.SLOW_DIRECTORY
        return verdict.LINKED if linked else None

    def _read_configs(self) -> dict[str, StoreConfig]:
        configs = {}
        if self._multiple:
            for store, kind in self._multiple.items():
                by_scheme = store_location.SCHEME_TO_CLS_BACKEND_MAP
                schemes = [scheme for scheme, stores in by_scheme.items() if store in stores]
                driver = by_scheme[schemes[0]][store]["store"] if schemes else None
                prefix = None if driver is None else driver.url_prefix
                scheme = schemes[0] if schemes else kind
                configs[store] = store_configs.read(self._conf, store, scheme, store, prefix)
            return configs
        for scheme, info in store_location.SCHEME_TO_CLS_MAP.items():
            store, group = str(info["store_entry"]), store_configs.SINGLE_GROUP
            if store not in configs:
                configs[store] = store_configs.read(self._conf, store, scheme, group, None)
        return configs

    def _find_missing_directories(self) -> dict[str, str]:
        if self._multiple:
            groups = [name for name, kind in self._multiple.items() if kind == "file"]
        else:
            groups = ["glance_store"] if "file" in self._conf.glance_store.stores else []
        missing = {}
        for group in groups:
            options = self._conf[group]
            several = options.filesystem_store_datadirs or []
            # Each of the several may have its priority behind a colon.
            directories = [options.filesystem_store_datadir, *(d.split(":")[0] for d in several)]
            for directory in directories:
                if directory and not Path(directory).is_dir():
                    missing["file" if group == "glance_store" else group] = directory
        return missing

    def _resolve_multiple(self, named: str | None, url: str, scheme: str) -> str:
        by_name = store_location.SCHEME_TO_CLS_BACKEND_MAP.get(scheme, {})
        if named is not None:
            if named in by_name and named in self._multiple:
                return named
            if named in self._multiple:
                raise StoreNotUsableError(
                    verdict.STORE_NOT_LOADED,
                    f"store {named!r} is enabled but its driver did not load for {scheme!r}:"
                    " see the warnings at start",
                )
            raise StoreNotUsableError(
                verdict.STORE_NOT_ENABLED,
                f"store {named!r} is not in [DEFAULT] enabled_backends",
            )
        candidates = [name for name in by_name if name in self._multiple]
        if candidates:
            return self.objects.choose(url, candidates)
        raise StoreNotUsableError(
            verdict.STORE_NOT_ENABLED,
            f"the location names no store and none for scheme {scheme!r} is loaded",
        )

    def _resolve_single(self, named: str | None, scheme: str) -> str:
        if named is not None:
            raise StoreNotUsableError(
                verdict.STORE_NOT_ENABLED,
                f"the location is in store {named!r} but this configuration has no"
                " [DEFAULT] enabled_backends",
            )
        info = store_location.SCHEME_TO_CLS_MAP.get(scheme)
        if info is None:
            raise StoreNotUsableError(
                verdict.STORE_NOT_ENABLED,
                f"no store for scheme {scheme!r} is loaded: add it to [glance_store] stores",
            )
        return str(info["store_entry"])


def _judge_directory(target: Target) -> Verdict | None:
    """Look where a file is not found; None if there are others, as where a store is mounted."""
    if target.scheme not in _FILE_SCHEMES:
        return None
    try:
        with os.scandir(Path(file_path(target.url)).parent) as entries:
            return None if any(entries) else verdict.EMPTY_DIRECTORY
    except (FileNotFoundError, NotADirectoryError):
        return verdict.MISSING_DIRECTORY
    except OSError:  # such as one that may be entered and not read
        return None


def _share_s3_sessions() -> None:
    """Let the deletes of an s3 store share a session of boto3.

    The driver makes one for each, and each reads boto3's models anew, which takes 100 ms of
    computing: ten deletes a second were the most that an agent could do.
    """
    driver: Any = sys.modules.get("glance_store._drivers.s3")
    if driver is None or not isinstance(driver.boto_session, ModuleType):
        return
    make, lock = driver.boto_session.Session, threading.Lock()

    @functools.cache
    def shared(**credentials: str) -> SimpleNamespace:
        session = make(**credentials)

        def client(**options: Any) -> Any:  # noqa: ANN401 - boto3's own
            with lock:  # a session's clients are safe in threads, making them is not
                return session.client(**options)

        return SimpleNamespace(client=client)

    driver.boto_session = SimpleNamespace(Session=shared)
