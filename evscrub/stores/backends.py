# SPDX-License-Identifier: Apache-2.0
"""The stores of this Glance, through glance_store, single-store and multi-store alike.

glance_store keeps its drivers and their configuration in module globals around ``cfg.CONF``; this
module and :mod:`evscrub.stores.loading` alone touch them. A location's store is always resolved
here first: glance_store itself would ask one store after another and call the data gone when none
has it.
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
    """A location whose store is known. Its URL is never shown.

    :param key: equal for locations of one object.
    :param endpoint: equal for locations in one part of a store.
    """

    store: str
    url: str
    scheme: str
    key: str = field(default="", compare=False)
    endpoint: str = field(default="", compare=False)

    def __repr__(self) -> str:
        return f"<{self.scheme} location in {self.store}>"


class Stores:
    """Loads the enabled stores and deletes from them.

    :param conf: Glance's configuration with evscrub's on top; must be the global ``cfg.CONF``,
        because that is what glance_store reads.
    :param acknowledged: returns the stores whose data is gone by an operator's word: their
        directories may be missing.
    :param allowed_places: further places of stores; see :mod:`evscrub.stores.places`.
    :param separate_stores: stores that are known to have no object in common.
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
                "no store is enabled: name those of Glance in [DEFAULT] enabled_backends, or a"
                " single one in [glance_store] stores, in glance-api.conf"
            )
        self._links = FileLinks()
        self.objects = StoreObjects({}, allowed_places, separate_stores)
        self.load()

    def load(self) -> set[str]:
        """Load the stores that cannot be used again; blocks, for some seconds each at most.

        :returns: those that can be used and could not before.
        """
        usable = self._loader.load()
        self.objects.configs = self._loader.configs()
        return usable

    def change(self, allowed_places: Collection[str], separate_stores: Collection[str]) -> None:
        """Apply changed options."""
        self.objects.change(allowed_places, separate_stores)

    @property
    def faults(self) -> dict[str, Fault]:
        """The enabled stores that cannot be used."""
        return self._loader.faults

    @property
    def deletable(self) -> list[str]:
        """The enabled stores, usable or not, that are not read-only by nature."""
        kinds = self._loader.enabled
        return [name for name in self.names if not faults.is_read_only(kinds[name])]

    @property
    def names(self) -> list[str]:
        """The enabled stores, usable or not."""
        return sorted(self._loader.enabled)

    @property
    def usable(self) -> list[str]:
        """The stores that are loaded."""
        return [name for name in self.names if name not in self.faults]

    def resolve(self, row: LocationRow) -> Target:
        """Find the store that a location is in.

        :raises StoreNotUsableError: none, or more than one, is configured here that fits.
        """
        url = self.url(row)
        store = self._store_of(row, url)
        found = self.objects.check(store, url)
        return Target(store, url, _scheme(url), index_key(url), endpoint(found, url))

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

    def key_and_place(self, value: str) -> tuple[str, str]:
        """Return what :meth:`index_key` does, and the location's place.

        :returns: see :func:`evscrub.domain.object_identity.place_of` for the place.
        :raises StoreNotUsableError: as :meth:`index_key` does.
        """
        try:
            return key_and_place(self._clear(value))
        except BadUrlError as error:
            raise StoreNotUsableError(verdict.BAD_URL, str(error)) from None

    def identify(self, row: LocationRow) -> Identity:
        """Return a location's object, whether or not its store is known.

        :raises StoreNotUsableError: it cannot be decrypted, or no object can be told from it.
        """
        url = self.url(row)
        try:
            store: str | None = self._store_of(row, url)
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
        if not value:
            raise StoreNotUsableError(
                verdict.BAD_URL, "the location has no URL, or a far too long one"
            )
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
            not_mounted = self._judge_directory(target) if isinstance(error, NotFound) else None
            refusal = refusals.explain(error, target.scheme, _path(target))
            answer = not_mounted or refusal or verdict.judge(error, target.scheme)
            if answer.reason == verdict.NO_WRITE_ACCESS:
                # The driver finds out by being loaded whether it has it again by the next probe.
                self._loader.reload(target.store)
            return answer
        return verdict.judge(None, target.scheme)

    def look_for(self, target: Target, size_bytes: int) -> Presence:
        """Say whether a store has a location's data; blocks for as long as the driver does.

        The drivers of Swift and Cinder answer 0 where asking fails, Swift's also where the object
        is not there; to a request for the data itself that driver says so.

        :param size_bytes: of the image, more than 0.
        """
        try:
            if self._multiple:
                size = glance_store.get_size_from_uri_and_backend(target.url, target.store)
            else:
                size = glance_store.get_size_from_backend(target.url)
        except NotFound:
            return Presence.ABSENT
        except Exception as error:  # noqa: BLE001 - drivers raise what their clients do
            LOG.debug(
                "Store %s cannot say how large data is: %s", target.store, type(error).__name__
            )
            return Presence.UNKNOWN
        if not size:
            swift = target.scheme.startswith("swift")
            return Presence.ABSENT if swift and self._is_absent(target) else Presence.UNKNOWN
        # Of volumes without a note of the image's size, Cinder's driver knows the GiB.
        rounded = size_bytes <= size < size_bytes + _GIB if target.scheme == "cinder" else False
        return Presence.THERE if size == size_bytes or rounded else Presence.ABSENT

    def _is_absent(self, target: Target) -> bool:
        """Whether a driver says, when it is asked for data, that it is not there."""
        try:
            if self._multiple:
                glance_store.get(target.url, target.store)
            else:
                glance_store.get_from_backend(target.url)
        except NotFound:
            return True
        except Exception as error:  # noqa: BLE001 - drivers raise what their clients do
            LOG.debug("Store %s was asked for data: %s", target.store, type(error).__name__)
        return False

    def _is_linked(self, target: Target) -> Verdict | None:
        """Look whether another file's data goes with a file; None if it does not."""
        path = _path(target)
        if path is None:
            return None
        linked = self._links.leads_to(str(path), self.objects.file_directories)
        if linked is None:
            return verdict.SLOW_DIRECTORY
        return verdict.LINKED if linked else None

    def _judge_directory(self, target: Target) -> Verdict | None:
        """Look where a file is not found; None if there are others, as where a store is mounted."""
        path = _path(target)
        found = None if path is None else _look_for_files(path.parent)
        if path is None or found is None:
            return None
        own = self.objects.directory_of(target.store, str(path.parent))
        # Of a directory that only a location names, the store may never have had any.
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
                f"store {store!r} has no URLs of scheme {quote(scheme)}: was it of another type"
                " when the image was stored?",
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
        """Refuse a location that may be in an enabled store that cannot be used."""
        found = self._loader.fault_of_scheme(scheme)
        if found is not None:
            raise _unusable(*found)


def _unusable(store: str, fault: Fault) -> StoreNotUsableError:
    return StoreNotUsableError(fault.reason, f"store {store} cannot be used: {fault.hint}", store)


def _path(target: Target) -> Path | None:
    """Return where a file store's file is, None for another store."""
    if target.scheme not in _FILE_SCHEMES:
        return None
    try:
        return Path(file_path(target.url))
    except BadUrlError:  # its driver says so
        return None


def _scheme(url: str) -> str:
    return url.partition(":")[0]


def _look_for_files(directory: Path) -> Verdict | None:
    """Return what is wrong with a directory without any files; None for one with some."""
    try:
        with os.scandir(directory) as entries:
            return None if any(entries) else verdict.EMPTY_DIRECTORY
    except (FileNotFoundError, NotADirectoryError):
        return verdict.MISSING_DIRECTORY
    except OSError:  # such as one that may be entered and not read
        return None
