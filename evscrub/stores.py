# SPDX-License-Identifier: Apache-2.0
"""The stores of this Glance, through glance_store, single-store and multi-store alike.

glance_store keeps its drivers and their configuration in module globals around ``cfg.CONF``; this
module and :mod:`evscrub.store_loading` alone touch them. A location's store is always resolved here
first: glance_store itself would ask one store after another and call the data gone when none has
it.
"""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import glance_store
from glance_store import location as store_location
from glance_store.exceptions import NotFound
from oslo_config import cfg
from oslo_log import log as logging

from evscrub import location_crypt, refusals, store_faults, verdict
from evscrub.rules import LocationRow
from evscrub.store_faults import Fault
from evscrub.store_loading import StoreLoader
from evscrub.verdict import StoreNotUsableError, Verdict

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """A location whose store is known. Its URL is never shown."""

    store: str
    url: str
    scheme: str

    def __repr__(self) -> str:
        return f"<{self.scheme} location in {self.store}>"


class Stores:
    """Loads the enabled stores and deletes from them.

    :param conf: Glance's configuration with evscrub's on top; must be the global ``cfg.CONF``,
        because that is what glance_store reads.
    :param acknowledged: returns the stores whose data is gone by an operator's word: their
        directories may be missing.
    :raises ValueError: no store is enabled.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        acknowledged: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self._key: str | None = conf.metadata_encryption_key
        self._multiple: dict[str, str] = dict(conf.enabled_backends or {})
        self._loader = StoreLoader(conf, acknowledged)
        if not self._loader.enabled:
            raise ValueError(
                "no store is enabled: name those of Glance in [DEFAULT] enabled_backends, or a"
                " single one in [glance_store] stores, in glance-api.conf"
            )
        self._loader.load()

    def load(self) -> set[str]:
        """Load the stores that cannot be used again; blocks, for some seconds each at most.

        :returns: those that can be used and could not before.
        """
        return self._loader.load()

    @property
    def faults(self) -> dict[str, Fault]:
        """The enabled stores that cannot be used."""
        return self._loader.faults

    @property
    def deletable(self) -> list[str]:
        """The enabled stores, usable or not, that are not read-only by nature."""
        kinds = self._loader.enabled
        return [name for name in self.names if not store_faults.is_read_only(kinds[name])]

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
        try:
            scheme = urlparse(url).scheme
        except ValueError:
            raise StoreNotUsableError(verdict.BAD_URL, "the location is no URL") from None
        if self._multiple:
            return Target(self._resolve_multiple(row.store, url, scheme), url, scheme)
        if row.store is not None:
            raise StoreNotUsableError(
                verdict.STORE_NOT_ENABLED,
                f"the location is in store {row.store!r} but this configuration has no"
                " [DEFAULT] enabled_backends",
            )
        info = store_location.SCHEME_TO_CLS_MAP.get(scheme)
        if info is None:
            self._refuse_faulty(scheme)
            raise StoreNotUsableError(
                verdict.STORE_NOT_ENABLED,
                f"no store for scheme {scheme!r} is loaded: add it to [glance_store] stores",
            )
        return Target(str(info["store_entry"]), url, scheme)

    def url(self, row: LocationRow) -> str:
        """The location's URL in the clear.

        :raises StoreNotUsableError: it cannot be decrypted.
        """
        if location_crypt.is_url(row.value):
            return row.value
        try:
            return location_crypt.decrypt_url(self._key or "", row.value)
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
        try:
            if self._multiple:
                glance_store.delete(target.url, target.store)
            else:
                glance_store.delete_from_backend(target.url)
        except Exception as error:  # noqa: BLE001 - drivers raise what their clients do
            not_mounted = _judge_directory(target) if isinstance(error, NotFound) else None
            refusal = refusals.explain(error, target.scheme, _path(target))
            answer = not_mounted or refusal or verdict.judge(error, target.scheme)
            if answer.reason == verdict.NO_WRITE_ACCESS:
                # The driver finds out by being loaded whether it has it again by the next probe.
                self._loader.reload(target.store)
            return answer
        return verdict.judge(None, target.scheme)

    def _resolve_multiple(self, named: str | None, url: str, scheme: str) -> str:
        by_name = store_location.SCHEME_TO_CLS_BACKEND_MAP.get(scheme, {})
        if named is not None:
            if (fault := self.faults.get(named)) is not None:
                raise _unusable(named, fault)
            if named in by_name and named in self._multiple:
                return named
            if named in self._multiple:
                raise StoreNotUsableError(
                    verdict.STORE_NOT_LOADED,
                    f"store {named!r} has no URLs of scheme {scheme!r}: was it of another type"
                    " when the image was stored?",
                )
            raise StoreNotUsableError(
                verdict.STORE_NOT_ENABLED,
                f"store {named!r} is not in [DEFAULT] enabled_backends",
            )
        fitting: list[str] = [
            name
            for name, info in by_name.items()
            if name in self._multiple
            and (not info["store"].url_prefix or url.startswith(info["store"].url_prefix))
        ]
        if len(fitting) == 1:
            return fitting[0]
        self._refuse_faulty(scheme)
        raise StoreNotUsableError(
            verdict.STORE_AMBIGUOUS if fitting else verdict.STORE_NOT_ENABLED,
            f"the location names no store and {len(fitting)} stores for scheme {scheme!r} fit it",
        )

    def _refuse_faulty(self, scheme: str) -> None:
        """Refuse a location that may be in an enabled store that cannot be used."""
        found = self._loader.fault_of_scheme(scheme)
        if found is not None:
            raise _unusable(*found)


def _unusable(store: str, fault: Fault) -> StoreNotUsableError:
    return StoreNotUsableError(fault.reason, f"store {store} cannot be used: {fault.hint}", store)


def _path(target: Target) -> Path | None:
    """Return where a file store's file is, None for another store."""
    if target.scheme not in {"file", "filesystem"}:
        return None
    return Path(unquote(urlparse(target.url).path))


def _judge_directory(target: Target) -> Verdict | None:
    """Look where a file is not found; None if there are others, as where a store is mounted."""
    path = _path(target)
    if path is None:
        return None
    try:
        with os.scandir(path.parent) as entries:
            return None if any(entries) else verdict.EMPTY_DIRECTORY
    except (FileNotFoundError, NotADirectoryError):
        return verdict.MISSING_DIRECTORY
    except OSError:  # such as one that may be entered and not read
        return None
