# SPDX-License-Identifier: Apache-2.0
"""Identify the objects of locations, and the stores that own them."""

from collections.abc import Collection, Iterable, Mapping

from evscrub.domain import verdict
from evscrub.domain.location_urls import BadUrlError, service
from evscrub.domain.object_identity import (
    Identity,
    Relation,
    StoreConfig,
    authority,
    identify,
    relate,
)
from evscrub.domain.verdict import StoreNotUsableError
from evscrub.stores import places
from evscrub.stores.directories import Directories


class StoreObjects:
    """Identifies objects by the configuration of the stores.

    :param configs: configurations by store.
    :param allowed_places: further places of stores; see :mod:`evscrub.stores.places`.
    :param separate: stores that have no object in common.
    :param directories: compares directories of file stores.
    """

    def __init__(
        self,
        configs: Mapping[str, StoreConfig],
        allowed_places: Iterable[str] = (),
        separate: Iterable[str] = (),
        directories: Directories | None = None,
    ) -> None:
        self.configs = configs
        self.directories = directories or Directories()
        self._further: places.Allowed = {}
        self._separate: frozenset[str] = frozenset()
        self.change(allowed_places, separate)

    def change(self, allowed_places: Iterable[str], separate: Iterable[str]) -> None:
        """Apply changed options."""
        self._further = places.allowed(allowed_places)
        self._separate = frozenset(separate)

    @property
    def file_directories(self) -> list[str]:
        """Directories of all file stores, including allowed places."""
        return [
            directory
            for config in self.configs.values()
            if config.kind == "file"
            for directory in places.directories(config, self._further)
        ]

    def directory_of(self, store: str, place: str) -> str | None:
        """Return the directory of a file store that contains a place, or None."""
        config = self.configs.get(store)
        above = [] if config is None else self._directories_above(config, place)
        return max(above, key=self.directories.depth, default=None)

    def identify(self, store: str | None, url: str) -> Identity:
        """Return the object of a location.

        :param store: name of its store; None if that is not known.
        :raises StoreNotUsableError: the URL does not identify an object.
        """
        config = None if store is None else self.configs.get(store)
        try:
            return identify(config, url)
        except BadUrlError as error:
            raise StoreNotUsableError(verdict.BAD_URL, str(error)) from None

    def relate(self, one: Identity, other: Identity) -> Relation:
        """Return whether two identities are of the same object."""
        return relate(one, other, self._separate, self.directories.same)

    def check(self, store: str, url: str) -> Identity:
        """Return the object of a location, which must be in a place of its store.

        :raises StoreNotUsableError: it is elsewhere, or the URL does not identify an object.
        """
        found = self.identify(store, url)
        if self._owns(store, found):
            return found
        own = ", ".join(self.configs[store].places) if store in self.configs else ""
        raise StoreNotUsableError(
            verdict.FOREIGN_OBJECT,
            f"the data is in {places.describe(found)}, outside of store {store}"
            + (f" ({own})" if own else "")
            + ": if Glance wrote it, add that place to [scrubber] allowed_places",
        )

    def is_elsewhere(self, store: str, url: str) -> bool:
        """Return whether the driver would ask another host than the store's about an object.

        To look for data, the vmware driver asks the host in the URL, which whoever writes a
        location can choose, and sends it the cookie of the store's session.
        """
        config = self.configs.get(store)
        if config is None or config.kind != "vmware":
            return False
        return service(authority(url)) != config.backend

    def choose(self, url: str, candidates: Collection[str]) -> str:
        """Choose the store of a location that names none.

        :param candidates: the stores whose drivers have the URL's scheme, at least one.
        :raises StoreNotUsableError: no store has the location, or several different ones may.
        """
        owners = [s for s in sorted(candidates) if self._owns(s, self.identify(s, url))]
        if not owners and len(candidates) == 1:
            # The only store that it can be in; whether its place is allowed is checked later.
            return next(iter(candidates))
        if not owners:
            raise StoreNotUsableError(
                verdict.FOREIGN_OBJECT,
                "the location names no store, and its data is in"
                f" {places.describe(self.identify(None, url))}, outside of the stores"
                f" {', '.join(sorted(candidates))}: if Glance wrote it, add that place to"
                " [scrubber] allowed_places",
            )
        fitting = self._closest(url, owners)
        first = self.identify(fitting[0], url)
        for store in fitting[1:]:
            if self.relate(first, self.identify(store, url)) is not Relation.SAME:
                raise StoreNotUsableError(
                    verdict.STORE_AMBIGUOUS,
                    f"the location names no store and {len(fitting)} stores may have it:"
                    f" {', '.join(fitting)}",
                )
        return fitting[0]

    def _closest(self, url: str, owners: list[str]) -> list[str]:
        """Return those of several stores owning an object that match its URL most closely."""
        if len(owners) == 1:
            return owners
        configs = [self.configs[store] for store in owners]
        if configs[0].kind == "file":
            place = self.identify(None, url).place or ""
            depths = {config.store: self._depth(config, place) for config in configs}
            return [store for store in owners if depths[store] == max(depths.values())]
        named = authority(url)
        return [config.store for config in configs if config.authority == named] or owners

    def _depth(self, config: StoreConfig, place: str) -> int:
        return max(map(self.directories.depth, self._directories_above(config, place)), default=0)

    def _directories_above(self, config: StoreConfig, place: str) -> list[str]:
        directories = places.directories(config, self._further)
        return [one for one in directories if self.directories.holds(one, place)]

    def _owns(self, store: str, found: Identity) -> bool:
        config = self.configs.get(store)
        if config is None:
            return False
        return places.owns(config, found, self._further, self.directories.holds)
