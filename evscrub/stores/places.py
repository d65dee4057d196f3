# SPDX-License-Identifier: Apache-2.0
"""Decide which objects belong to a store: those in places where Glance writes or that are allowed.

Data is deleted only there. A location may name any bucket, pool or directory that the store's
credentials can reach, and members of a project may write locations if Glance permits it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from evscrub.domain.object_identity import Identity, StoreConfig
from evscrub.domain.quoting import quote

#: Names of places by kind of store, for messages.
NAMES = {
    "file": "directory",
    "rbd": "pool",
    "s3": "bucket",
    "swift": "container",
    "vmware": "datastore",
}
#: Kinds without places. This is safe: an http store never deletes, and Cinder itself decides which
#: volumes the store's user may delete.
_OF_ANY_PLACE = frozenset({"cinder", "http"})
#: Places that may be shown: no part of a URL with credentials matches.
_is_showable = re.compile(r"[\w.-]{1,255}").fullmatch

Allowed = Mapping[str, tuple[str, ...]]
"""Allowed places by store, in addition to its own."""


def allowed(entries: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Group the entries of ``allowed_places``, each ``store:place``, by store."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        store, _, place = entry.partition(":")
        found[store] = (*found.get(store, ()), place)
    return found


def owns(
    config: StoreConfig,
    found: Identity,
    further: Allowed,
    holds: Callable[[str, str], bool],
) -> bool:
    """Return whether an object is in a place of a store.

    :param config: configuration of the store.
    :param found: the object, as identified with this configuration.
    :param further: allowed places by store.
    :param holds: returns whether the first directory is, or contains, the second.
    """
    if found.kind in _OF_ANY_PLACE:
        return True
    if found.place is None:
        return False
    more = further.get(config.store, ())
    match found.kind:
        case "file":
            place = found.place
            return any(holds(directory, place) for directory in directories(config, further))
        case "swift":
            return _owns_container(config, found, more)
        case "vmware":
            return _owns_path(f"{found.place}/{found.name}", (*config.places, *more))
    return found.place in config.places or any(fnmatchcase(found.place, place) for place in more)


def directories(config: StoreConfig, further: Allowed) -> list[str]:
    """Return the directories of a file store, without relative ones."""
    more = (place for place in further.get(config.store, ()) if place.startswith("/"))
    return [*config.places, *more]


def describe(found: Identity) -> str:
    """Describe the place of an object without anything that may be part of a credential."""
    name = NAMES.get(found.kind, "place")
    if found.kind == "file" and found.place is not None:
        return f"{name} {quote(found.place)}"
    if found.kind == "vmware" and found.place is not None:
        folder = found.name.rpartition("/")[0]
        return f"{name} {quote(found.place + '/' + folder)}"
    if found.place is None or not _is_showable(found.place):
        return f"a {name} that is not shown"
    return f"{name} {found.place}"


def _owns_container(config: StoreConfig, found: Identity, more: Iterable[str]) -> bool:
    """Return whether a Swift object is in a container of the store or an allowed one.

    With ``swift_store_multiple_containers_seed``, and in a multi-tenant store, the name of a
    container ends in the first characters of the image's id, which is the name of the object.
    Allowed containers of other accounts are written with their account.
    """
    account, container = found.backend, found.place or ""
    accounts = {f"{name} {config.region}" for name in config.accounts.values()}
    if account is None or config.backend is not None or account in accounts:
        for place in config.places:
            beginning = container[len(place) + 1 :]
            if container == place or (
                beginning
                and container.startswith(f"{place}_")
                and found.name.lower().startswith(beginning)
            ):
                return True
        if any("/" not in place and fnmatchcase(container, place) for place in more):
            return True
    full = f"{account.rpartition(' ')[0]}/{container}" if account is not None else container
    return any("/" in place and fnmatchcase(full, place) for place in more)


def _owns_path(path: str, places: Iterable[str]) -> bool:
    path = path.casefold()
    return any(path.startswith(place.rstrip("/").casefold() + "/") for place in places)
