# SPDX-License-Identifier: Apache-2.0
"""Which object a location stands for: the one that the store driver's delete removes.

Pure. What a URL leaves to a store's configuration comes from there; what neither says stays None,
and such an object may be any that is alike in the rest.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from evscrub.domain.location_urls import Parsed, parse, service


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """What of a store's configuration decides which object its driver removes, and which are its.

    :param store: its name, as in ``enabled_backends``, or its type where there is a single one.
    :param kind: as :func:`evscrub.domain.location_urls.parse` calls it.
    :param backend: the service that has the data; None where that is not known.
    :param default_place: where data lies whose URL does not say it.
    :param places: where Glance writes: bucket, container, pool, directories, or
        ``datacenter:datastore/directory``.
    :param accounts: Swift's accounts by reference, as :func:`account` writes them.
    :param region: Swift's region.
    :param authority: the service as Glance writes it into URLs.
    """

    store: str
    kind: str
    backend: str | None = None
    default_place: str | None = None
    places: tuple[str, ...] = ()
    accounts: Mapping[str, str] = field(default_factory=dict)
    region: str = ""
    authority: str = ""


class Identity(NamedTuple):
    """An object: URLs with equal identities are of the same one.

    :param store: whose configuration completed it, None without one; two stores can be the same.
    :param backend: see :class:`StoreConfig`; with the account in it for Swift. Empty where names
        are unique everywhere.
    """

    kind: str
    store: str | None
    backend: str | None
    place: str | None
    name: str


class Relation(Enum):
    """Whether two locations are of the same object."""

    SAME = "same"
    OTHER = "other"
    UNTOLD = "untold"  #: they may be: what would tell is not known


#: Kinds whose names are unique, whichever store has them.
_UNIQUE = frozenset({"cinder", "http"})
_VERSION = re.compile(r"/?v[0-9]+(\.[0-9]+)?$")


def authority(url: str) -> str:
    """Return the service that a URL names, although a delete may not use it; "" for none.

    :raises BadUrlError: no object can be told from the URL.
    """
    kind, parsed = parse(url)
    if kind != "s3":
        return parsed.authority
    scheme = "https" if url.startswith("s3+https:") else "http"
    return service(f"{scheme}://{parsed.authority}")


def identify(config: StoreConfig | None, url: str) -> Identity:
    """Return the object that a delete of `url` in a store removes.

    :param config: the store's; None where it is not known which store it is, or not how it is
        configured.
    :raises BadUrlError: no object can be told from the URL.
    """
    kind, parsed = parse(url)
    if kind in _UNIQUE or kind == "file":
        store = None if config is None else config.store
        return Identity(kind, store, "", parsed.place, parsed.name)
    if config is None or config.kind != kind:
        return Identity(kind, None, None, parsed.place, parsed.name)
    place = config.default_place if parsed.place is None else parsed.place
    backend = config.backend
    if kind == "swift" and backend is None:
        backend = _account_of(config, url, parsed)
    return Identity(kind, config.store, backend, place, parsed.name)


def endpoint(found: Identity, url: str) -> str:
    """Return the part of its store that an object is in: a directory, bucket, container or pool.

    What one part answers proves nothing about another. What a delete does not use of a URL, its
    writer can choose, so that is no part of the result; which is not for showing.

    :param found: the object, as identified by that URL.
    """
    # Whatever the configuration says of the account, the URL tells who is asked for a token.
    server = _VERSION.sub("", service(authority(url))) if found.kind == "swift" else ""
    return f"{found.kind}/{found.place or ''}\0{server}/{found.backend or ''}"


def place_of(part: str) -> str:
    """Return what of an endpoint follows from the URL alone.

    It is as :func:`evscrub.domain.location_urls.place_key` gives it where the URL says the place.
    """
    return part.partition("\0")[0]


def _account_of(config: StoreConfig, url: str, parsed: Parsed) -> str | None:
    if url.startswith("swift+config:"):
        name = config.accounts.get(parsed.authority)
    else:
        name = account(parsed.user, parsed.authority)
    return name and f"{name} {config.region}"


def account(user: str, auth_url: str) -> str | None:
    """Return the Swift account that a user, as ``tenant:user``, has at an authentication URL.

    None where the user is not named. The URL's version and scheme make no difference.
    """
    tenant = user.partition(":")[0]
    return f"{tenant}@{_VERSION.sub('', service(auth_url))}" if tenant else None


def relate(
    one: Identity,
    other: Identity,
    separate: frozenset[str],
    same_directory: Callable[[str, str], bool | None],
) -> Relation:
    """Say whether two identities are of the same object.

    :param separate: stores that are known not to have an object in common.
    :param same_directory: whether two paths are of one directory; None where that cannot be told.
    """
    if (one.kind, one.name) != (other.kind, other.name):
        return Relation.OTHER
    if one.place is None or other.place is None:
        return Relation.UNTOLD
    if one.kind == "file":
        same = same_directory(one.place, other.place)
        if same is not None:
            return Relation.SAME if same else Relation.OTHER
    elif one.place != other.place:
        return Relation.OTHER
    elif one.backend == other.backend is not None:
        return Relation.SAME
    if one.store != other.store and {one.store, other.store} <= separate:
        return Relation.OTHER
    return Relation.UNTOLD
