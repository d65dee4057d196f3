# SPDX-License-Identifier: Apache-2.0
"""Delete and look up data in the stores of a single-store or multi-store Glance.

glance_store keeps its drivers and their configuration in module globals; only this module and
:mod:`evscrub.stores.loading` use them. The store of a location is always resolved here first,
because glance_store without a store tries all of them and raises NotFound if none has the data.
"""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import glance_store
from glance_store import location as store_location
from glance_store.exceptions import NotFound
from oslo_config import cfg
from oslo_log import log as logging

from evscrub.domain import location_crypt, verdict
from evscrub.domain.decisions import LocationRow
from evscrub.domain.location_urls import BadUrlError, file_path, index_key, key_and_place, tidy_key
from evscrub.domain.object_identity import Identity, Relation, endpoint
from evscrub.domain.proof import Presence
from evscrub.domain.quoting import quote
from evscrub.domain.verdict import StoreNotUsableError, Verdict
from evscrub.stores import faults, refusals
from evscrub.stores.faults import Fault
from evscrub.stores.file_links import FileLinks
from evscrub.stores.loading import StoreLoader
from evscrub.stores.objects import StoreObjects

LOG = logging.getLogger(__name__)

_GIB = 1024**3
_FILE_SCHEMES = frozenset({"file", "filesystem"})


@dataclass(frozen=True, slots=True)
class Target:
    """A location whose store is known.

    :param url: decrypted URL, which may contain credentials and is never logged or shown.
    :param key: equal for locations of the same object.
    :param endpoint: equal for locations in the same part of a store.
    """

    store: str
    url: str
    scheme: str
    key: str = field(default="", compare=False)
    endpoint: str = field(default="", compare=False)

    def __repr__(self) -> str:
        return f"<{self.scheme} location in {self.store}>"


class Stores:
    """Loads the enabled stores and deletes data from them.

    :param conf: Glance's configuration, overridden by evscrub's; must be the global ``cfg.CONF``,
        which glance_store reads.
    :param acknowledged: returns the stores whose data is gone according to the operator, so that
        their directories may be missing.
    :param allowed_places: further places of stores; see :mod:`evscrub.stores.places`.
    :param separate_stores: stores that have no object in common.
    :raises ValueError: no store is enabled.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        acknowledged: Callable[[], Collection[str]] = frozenset,
        allowed_places: Collection[str] = (),
        separate_stores: Collection[str] = (),
    ) -> None:
        self._key: str | None = conf.metadata_encryption_key
        self._multiple: dict[str, str] = dict(conf.enabled_backends or {})
        self._loader = StoreLoader(conf, acknowledged)
        if not self._loader.enabled:
            raise ValueError(
                "no store is enabled: set [DEFAULT] enabled_backends, or [glance_store] stores for"
                " a single store, in glance-api.conf"
            )
        self._links = FileLinks()
        self.objects = StoreObjects({}, allowed_places, separate_stores)
        self.load()

    def load(self) -> set[str]:
        """Load the stores that cannot be used; blocks for a bounded time for each store.

        :returns: the stores that became usable.
        """
        usable = self._loader.load()
        self.objects.configs = self._loader.configs()
        return usable

    def change(self, allowed_places: Collection[str], separate_stores: Collection[str]) -> None:
        """Apply changed options."""
        self.objects.change(allowed_places, separate_stores)

    @property
    def faults(self) -> dict[str, Fault]:
        """Faults of the enabled stores that cannot be used, by name."""
        return self._loader.faults

    @property
    def deletable(self) -> list[str]:
        """Names of the enabled stores, usable or not, that are not read-only by nature."""
        kinds = self._loader.enabled
        return [name for name in self.names if not faults.is_read_only(kinds[name])]

    @property
    def names(self) -> list[str]:
        """Names of the enabled stores, usable or not."""
        return sorted(self._loader.enabled)

    @property
    def schemes(self) -> dict[str, tuple[str, ...]]:
        """URL schemes of the enabled stores, by name."""
        return {name: faults.schemes(kind) for name, kind in self._loader.enabled.items()}

    @property
    def usable(self) -> list[str]:
        """Names of the stores that are loaded."""
        return [name for name in self.names if name not in self.faults]

    def resolve(self, row: LocationRow) -> Target:
        """Find the store of a location.

        :raises StoreNotUsableError: no store of this configuration has the location, several may
            have it, or the store cannot be used.
        """
        url = self._clear(row.value)
        store = self._store_of(row, url)
        found = self.objects.check(store, url)
        return Target(store, url, _scheme(url), index_key(url), endpoint(found, url))

    def index_key(self, value: str) -> str:
        """Return a key that is equal for all locations of an object, and rarely for others.

        :param value: value of a location, as stored in the registry.
        :raises StoreNotUsableError: it cannot be decrypted, or does not identify an object.
        """
        key = tidy_key(value)
        if key is not None:
            return key
        try:
            return index_key(self._clear(value))
        except BadUrlError as error:
            raise StoreNotUsableError(verdict.BAD_URL, str(error)) from None

    def key_and_place(self, value: str) -> tuple[str, str]:
        """Return the :meth:`index_key` and the place of a location.

        :param value: value of a location, as stored in the registry.
        :returns: the place as in :func:`evscrub.domain.object_identity.place_of`.
        :raises StoreNotUsableError: it cannot be decrypted, or does not identify an object.
        """
        try:
            return key_and_place(self._clear(value))
        except BadUrlError as error:
            raise StoreNotUsableError(verdict.BAD_URL, str(error)) from None

    def identify(self, row: LocationRow) -> Identity:
        """Return the object of a location, even if its store is not known.

        :raises StoreNotUsableError: it cannot be decrypted, or does not identify an object.
        """
        url = self._clear(row.value)
        try:
            store: str | None = self._store_of(row, url)
        except StoreNotUsableError:
            store = row.store if self._multiple else None
        return self.objects.identify(store, url)

    def relate(self, one: Identity, other: Identity) -> Relation:
        """Return whether two locations are of the same object."""
        return self.objects.relate(one, other)

    def are_same(self, one: Target, other: Target) -> bool:
        """Return whether two locations are certainly of the same object."""
        identities = (self.objects.identify(target.store, target.url) for target in (one, other))
        return self.objects.relate(*identities) is Relation.SAME

    def _clear(self, value: str) -> str:
        """Return the decrypted URL of a location.

        :raises StoreNotUsableError: it cannot be decrypted.
        """
        if not value:
            raise StoreNotUsableError(
                verdict.BAD_URL, "the location has no URL, or one that is too long to be read"
            )
        try:
            return location_crypt.decrypt_url(self._key or "", value)
        except ValueError:
            raise StoreNotUsableError(
                verdict.UNDECIPHERABLE,
                "the location cannot be decrypted: set [DEFAULT] metadata_encryption_key to"
                " Glance's key",
            ) from None

    def delete(self, target: Target) -> Verdict:
        """Delete the data of a location; blocks as long as the driver does.

        :returns: the verdict on the driver's answer; no exception is raised.
        """
        kept = self._is_linked(target) if target.scheme in _FILE_SCHEMES else None
        if kept is not None:
            return kept
        try:
            if self._multiple:
                glance_store.delete(target.url, target.store)
            else:
                glance_store.delete_from_backend(target.url)
        except Exception as error:  # noqa: BLE001 - drivers may raise anything
            not_mounted = self._judge_directory(target) if isinstance(error, NotFound) else None
            refusal = refusals.explain(error, target.scheme, _path(target))
            answer = not_mounted or refusal or verdict.judge(error, target.scheme)
            if answer.reason == verdict.NO_WRITE_ACCESS:
                # A driver checks its write access only while it is loaded: load it again, so that
                # the next probe may succeed.
                self._loader.reload(target.store)
            return answer
        return verdict.judge(None, target.scheme)

    def look_for(self, target: Target, size_bytes: int) -> Presence:
        """Return whether a store has the data of a location; blocks as long as the driver does.

        The swift and cinder drivers return size 0 if the request fails, and the swift driver also
        if the object does not exist. The latter is found by a request for the data itself.

        :param size_bytes: size of the image, more than 0.
        """
        if self.objects.is_elsewhere(target.store, target.url):
            return Presence.UNKNOWN
        try:
            if self._multiple:
                size = glance_store.get_size_from_uri_and_backend(target.url, target.store)
            else:
                size = glance_store.get_size_from_backend(target.url)
        except NotFound:
            return Presence.ABSENT
        except Exception as error:  # noqa: BLE001 - drivers may raise anything
            LOG.debug(
                "Store %s cannot look up the size of data: %s", target.store, type(error).__name__
            )
            return Presence.UNKNOWN
        if not size:
            swift = target.scheme.startswith("swift")
            return Presence.ABSENT if swift and self._is_absent(target) else Presence.UNKNOWN
        # Without the image's size in a volume's metadata the cinder driver returns whole GiB.
        rounded = size_bytes <= size < size_bytes + _GIB if target.scheme == "cinder" else False
        return Presence.THERE if size == size_bytes or rounded else Presence.ABSENT

    def _is_absent(self, target: Target) -> bool:
        """Return whether the driver raises NotFound for a request for the data."""
        try:
            if self._multiple:
                glance_store.get(target.url, target.store)
            else:
                glance_store.get_from_backend(target.url)
        except NotFound:
            return True
        except Exception as error:  # noqa: BLE001 - drivers may raise anything
            LOG.debug("Store %s cannot read data: %s", target.store, type(error).__name__)
        return False

    def _is_linked(self, target: Target) -> Verdict | None:
        """Return a verdict if a symbolic link may point to the file, None if none does."""
        path = _path(target)
        if path is None:
            return None
        linked = self._links.leads_to(str(path), self.objects.file_directories)
        if linked is None:
            return verdict.SLOW_DIRECTORY
        return verdict.LINKED if linked else None

    def _judge_directory(self, target: Target) -> Verdict | None:
        """Return a verdict if the directory of a missing file looks unmounted, else None."""
        path = _path(target)
        found = None if path is None else _look_for_files(path.parent)
        if path is None or found is None:
            return None
        own = self.objects.directory_of(target.store, str(path.parent))
        # A directory that only a location names may never have existed: the store's own decides.
        return found if own is None else _look_for_files(Path(own)) or verdict.MISSING_BELOW

    def _store_of(self, row: LocationRow, url: str) -> str:
        scheme = _scheme(url)
        if not self._multiple:
            return self._resolve_single(row.store, scheme)
        if row.store is not None:
            return self._resolve_named(row.store, scheme)
        kinds = self._multiple.items()
        candidates = [name for name, kind in kinds if scheme in faults.schemes(kind)]
        if not candidates:
            raise StoreNotUsableError(
                verdict.STORE_NOT_ENABLED,
                f"the location names no store and none for scheme {quote(scheme)} is enabled",
            )
        store = self.objects.choose(url, candidates)
        if (fault := self.faults.get(store)) is not None:
            raise _unusable(store, fault)
        return store

    def _resolve_named(self, store: str, scheme: str) -> str:
        if (fault := self.faults.get(store)) is not None:
            raise _unusable(store, fault)
        if store not in self._multiple:
            raise StoreNotUsableError(
                verdict.STORE_NOT_ENABLED,
                f"store {quote(store)} is not in [DEFAULT] enabled_backends",
            )
        if store not in store_location.SCHEME_TO_CLS_BACKEND_MAP.get(scheme, {}):
            raise StoreNotUsableError(
                verdict.STORE_NOT_LOADED,
                f"store {store!r} has no URLs of scheme {quote(scheme)}: check whether its type in"
                " [DEFAULT] enabled_backends has changed since the image was stored",
            )
        return store

    def _resolve_single(self, named: str | None, scheme: str) -> str:
        if named is not None:
            raise StoreNotUsableError(
                verdict.STORE_NOT_ENABLED,
                f"the location is in store {quote(named)} but this configuration has no"
                " [DEFAULT] enabled_backends",
            )
        info = store_location.SCHEME_TO_CLS_MAP.get(scheme)
        if info is None:
            self._refuse_faulty(scheme)
            raise StoreNotUsableError(
                verdict.STORE_NOT_ENABLED,
                f"no store for scheme {quote(scheme)} is loaded: add it to [glance_store] stores",
            )
        return str(info["store_entry"])

    def _refuse_faulty(self, scheme: str) -> None:
        """Raise if the location may be in an enabled store that cannot be used."""
        found = self._loader.fault_of_scheme(scheme)
        if found is not None:
            raise _unusable(*found)


def _unusable(store: str, fault: Fault) -> StoreNotUsableError:
    return StoreNotUsableError(fault.reason, f"store {store} cannot be used: {fault.hint}", store)


def _path(target: Target) -> Path | None:
    """Return the path of a file store's file; None for another type of store."""
    if target.scheme not in _FILE_SCHEMES:
        return None
    try:
        return Path(file_path(target.url))
    except BadUrlError:  # the driver rejects it too
        return None


def _scheme(url: str) -> str:
    return url.partition(":")[0]


def _look_for_files(directory: Path) -> Verdict | None:
    """Return a verdict if a directory is empty or missing, None if it has files."""
    try:
        with os.scandir(directory) as entries:
            return None if any(entries) else verdict.EMPTY_DIRECTORY
    except (FileNotFoundError, NotADirectoryError):
        return verdict.MISSING_DIRECTORY
    except OSError:  # for example no permission to list it
        return None
