# SPDX-License-Identifier: Apache-2.0
"""Identify the object of a location: the one that the store driver's delete removes. Pure.

Parts that a URL does not have come from the store's configuration. A part that neither has is None;
such an object may be the same as any that is equal in the other parts.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from evscrub.domain.location_urls import Parsed, parse, service


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """The part of a store's configuration that determines its objects.

    :param store: name, as in ``enabled_backends``, or type if there is a single store.
    :param kind: kind of store, as :func:`evscrub.domain.location_urls.parse` returns it.
    :param backend: the service that has the data; None if it is not known.
    :param default_place: place of objects whose URL does not name one.
    :param places: where Glance writes: bucket, container, pool, directories, or
        ``datacenter:datastore/directory``.
    :param accounts: Swift accounts by reference, as :func:`account` returns them.
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
    """An object, as identified by a URL and a store's configuration.

    :param store: the store whose configuration was used; None without one. Two stores may be the
        same storage.
    :param backend: see :class:`StoreConfig`; for Swift it includes the account. Empty if names are
        unique in all stores of the kind.
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
    UNKNOWN = "unknown"  #: they may be the same


#: Kinds of stores in which names are unique across all stores.
_UNIQUE = frozenset({"cinder", "http"})
_VERSION = re.compile(r"/?v[0-9]+(\.[0-9]+)?$")


def authority(url: str) -> str:
    """Return the service that a URL names, even if a delete ignores it; "" if it names none.

    :raises BadUrlError: the URL does not identify an object.
    """
    kind, parsed = parse(url)
    if kind != "s3":
        return parsed.authority
    scheme = "https" if url.startswith("s3+https:") else "http"
    return service(f"{scheme}://{parsed.authority}")


def identify(config: StoreConfig | None, url: str) -> Identity:
    """Return the object that a delete of `url` in a store removes.

    :param config: configuration of the store; None if the store or its configuration is not known.
    :raises BadUrlError: the URL does not identify an object.
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
    """Return the part of its store that has an object: a directory, bucket, container or pool.

    Answers of one part are no evidence about another. Parts of the URL that a delete ignores are
    left out, because whoever writes a location can choose them freely. The result may contain
    credentials and must not be logged.

    :param found: the object, as identified by that URL.
    """
    # The URL determines which server issues the token, whatever account is configured.
    server = _VERSION.sub("", service(authority(url))) if found.kind == "swift" else ""
    return f"{found.kind}/{found.place or ''}\0{server}/{found.backend or ''}"


def place_of(part: str) -> str:
    """Return the place of an endpoint, without what comes from the configuration.

    It equals :func:`evscrub.domain.location_urls.place_key` if the URL names the place.

    :param part: as :func:`endpoint` returns it.
    """
    return part.partition("\0")[0]


def _account_of(config: StoreConfig, url: str, parsed: Parsed) -> str | None:
    if url.startswith("swift+config:"):
        name = config.accounts.get(parsed.authority)
    else:
        name = account(parsed.user, parsed.authority)
    return name and f"{name} {config.region}"


def account(user: str, auth_url: str) -> str | None:
    """Return the Swift account of a user at an authentication URL.

    :param user: ``tenant:user``.
    :param auth_url: its scheme and API version make no difference.
    :returns: None if `user` is empty.
    """
    tenant = user.partition(":")[0]
    return f"{tenant}@{_VERSION.sub('', service(auth_url))}" if tenant else None


def relate(
    one: Identity,
    other: Identity,
    separate: frozenset[str],
    same_directory: Callable[[str, str], bool | None],
) -> Relation:
    """Return whether two identities are of the same object.

    :param separate: stores that have no object in common, by configuration.
    :param same_directory: returns whether two paths lead to the same directory, None if unknown.
    """
    if (one.kind, one.name) != (other.kind, other.name):
        return Relation.OTHER
    if one.place is None or other.place is None:
        return Relation.UNKNOWN
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
    return Relation.UNKNOWN
