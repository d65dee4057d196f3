# SPDX-License-Identifier: Apache-2.0
"""Reads locations' URLs as the store drivers do.

Pure. One function for each driver of glance_store reads a URL as the driver's own ``StoreLocation``
does, and keeps what its ``delete`` uses:

======  =======================================  ==================================================
driver  a delete uses                            and ignores
======  =======================================  ==================================================
file    the path, as it stands                   what follows ``?`` or ``#``
s3      bucket and key; the endpoint and the     credentials, host and scheme in the URL, ``?``,
        keys of the store's configuration        ``#``, slashes at the end
swift   container, object, and the account: the  the password, ``?``, ``#``; the authentication URL
        one that the credentials belong to, or   where ``swift_store_endpoint`` is set
        that ``swift_store_endpoint`` names
rbd     pool (the configured one where the URL   the cluster's id, the snapshot's name
        is short) and image
cinder  the volume's id                          all else
vmware  datacenter, datastore and path; the      the host in the URL, ``#``, further parameters
        host of the store's configuration
http    never deletes                            scheme, default ports, credentials, ``#``
======  =======================================  ==================================================

Of these :mod:`evscrub.domain.object_identity` completes what the URL leaves to the configuration.
"""

import functools
import re
from collections.abc import Callable, Mapping
from posixpath import normpath
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlparse, urlsplit


class BadUrlError(ValueError):
    """A URL that no object of Glance's can be told from; most of them the driver refuses too.

    The message holds nothing of the URL.
    """


class Parsed(NamedTuple):
    """What a URL says without a store's configuration.

    :param place: bucket, container, pool, directory, or datacenter and datastore.
    :param name: of the object, in its place.
    :param user: the user in the URL, or the reference to one, where it decides about the object.
    :param authority: the service that the URL names, whether a delete uses it or not.
    :param key: equal for all URLs of one object, whatever the stores' configuration.
    """

    place: str | None
    name: str
    user: str
    authority: str
    key: str


#: Nothing that a URL of these characters alone is split at needs a closer look.
_is_plain = re.compile(r"""[!"$->@-Z\\^-~]+""").fullmatch
_S3_SCHEMES = ("s3", "s3+http", "s3+https")
_SWIFT_SCHEMES = ("swift", "swift+http", "swift+https", "swift+config")
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: What is no bucket and no container; a server may resolve dots.
_NO_PLACES = frozenset({"", ".", ".."})
#: The driver names the segments of a large object after it, in the same container. They go with it;
#: a location of one alone takes a part of what may be another image's data.
_SEGMENT = r"[0-9A-Fa-f-]{36}-[0-9]{5,}"
_is_segment = re.compile(_SEGMENT).fullmatch
_S3_DEPTH = 3
_RBD_DEPTH = 4
#: The vmware driver cuts so many characters, whatever they are.
_FOLDER = len("/folder")


def _split(url: str) -> tuple[str, str]:
    """Return a URL's authority and path, as :func:`urllib.parse.urlsplit` sees them."""
    if _is_plain(url):
        host, slash, path = url.partition("://")[2].partition("/")
        return host, slash + path
    try:
        pieces = urlsplit(url)
    except ValueError:
        raise BadUrlError("the location is no URL") from None
    return pieces.netloc, pieces.path


def service(url: str) -> str:
    """Return a service's address without scheme, default port and case; https is the default.

    Amazon's S3 is one service, whichever of its hosts is asked: names of buckets are unique in it.
    """
    try:
        pieces = urlsplit(url if "://" in url else f"https://{url}")
        host = (pieces.hostname or "").rstrip(".")
        port = "" if pieces.port in {None, _DEFAULT_PORTS.get(pieces.scheme)} else f":{pieces.port}"
    except ValueError:
        return url.lower()
    for amazon in ("amazonaws.com", "amazonaws.com.cn"):
        if host == amazon or host.endswith(f".{amazon}"):
            return amazon
    return f"{host}{port}{pieces.path.rstrip('/')}"


def _s3(url: str) -> Parsed:
    host, path = _split(url)
    parts = f"{host}/{path.strip('/')}".strip("/").split("/")
    bucket, key = parts[-2:] if len(parts) >= _S3_DEPTH else ("", "")
    if bucket in _NO_PLACES:
        raise BadUrlError("the location has no bucket and key")
    return Parsed(bucket, key, "", parts[0].rpartition("@")[2], f"s3/{bucket}/{key}")


def _swift(url: str) -> Parsed:
    host, path = _split(url)
    path = path.lstrip("/")
    if not host:
        # As of old Pythons: what the driver takes for the host has gone into the path.
        user, _, path = path.rpartition("@")
        host, _, path = path.partition("/")
        path = path.strip("/")
    else:
        user, _, host = host.rpartition("@")
    rest, slash, name = path.rpartition("/")
    rest, _, container = rest.rpartition("/")
    if not slash or container in _NO_PLACES:
        raise BadUrlError("the location has no container and object")
    if _is_segment(name):
        raise BadUrlError("the location is of a segment of a large object")
    if url.startswith("swift+config:"):
        return Parsed(container, name, "", host, f"swift/{container}/{name}")
    scheme = "http" if url.startswith("swift+http:") else "https"
    return Parsed(
        container,
        name,
        unquote(user).rpartition(":")[0],
        f"{scheme}://{host}/{rest}",
        f"swift/{container}/{name}",
    )


def _rbd(url: str) -> Parsed:
    pieces = url[len("rbd://") :].split("/")
    if len(pieces) not in {1, _RBD_DEPTH} or "" in pieces:
        raise BadUrlError("the location names no rbd image")
    if len(pieces) == 1:
        return Parsed(None, pieces[0], "", "", f"rbd/{pieces[0]}")
    cluster, pool, image = map(unquote, pieces[:-1])
    return Parsed(pool, image, "", cluster, f"rbd/{image}")


def _cinder(url: str) -> Parsed:
    # What the driver takes for a UUID; Cinder's database may compare without case.
    text = url.rpartition("/")[2].replace("urn:", "").replace("uuid:", "")
    volume = text.strip("{}").replace("-", "").lower()
    if re.fullmatch("[0-9a-f]{32}", volume) is None:
        raise BadUrlError("the location has no volume's id")
    return Parsed("", volume, "", "", f"cinder/{volume}")


def _file(url: str) -> Parsed:
    path = file_path(url)
    directory, _, name = path.rstrip("/").rpartition("/")
    # One that is relative depends on where a process was started.
    place = (directory or "/") if path.startswith("/") else None
    return Parsed(place, name, "", "", f"file/{name}")


def file_path(url: str) -> str:
    """Return the path that the file driver opens and unlinks: it decodes nothing.

    :raises BadUrlError: there is none.
    """
    path = "".join(_split(url)).strip()
    if not path:
        raise BadUrlError("the location has no path")
    return path


def _vmware(url: str) -> Parsed:
    try:
        pieces = urlsplit(url)
    except ValueError:
        raise BadUrlError("the location is no URL") from None
    values = parse_qs(pieces.query)
    if not pieces.query:
        raise BadUrlError("the location names no datastore")
    center, store = values.get("dcPath"), values.get("dsName")
    # vSphere finds what it has by names in other letters too, and knows more than one spelling of
    # a path; which, depends on the datastore.
    place = f"{center[0].strip('/')}:{store[0]}".casefold() if center and store else None
    name = normpath("/" + unquote(pieces.path[_FOLDER:])).lstrip("/").casefold()
    return Parsed(place, name, "", pieces.netloc, f"vmware/{name}")


def _http(url: str) -> Parsed:
    try:
        pieces = urlparse(url)
    except ValueError:
        raise BadUrlError("the location is no URL") from None
    # Of both schemes, so that what differs in the scheme alone is one object.
    host = re.sub(r"\.?(:(80|443)?)?$", "", pieces.netloc.rpartition("@")[2].lower())
    name = f"{host}{pieces.path}?{pieces.query}"
    return Parsed("", name, "", host, f"http/{name}")


def _unknown(url: str) -> Parsed:
    """Read a URL of a driver that is not glance_store's; only credentials are known to be none."""
    scheme, _, rest = url.partition(":")
    authority, slash, path = rest.lstrip("/").partition("/")
    name = authority.rpartition("@")[2] + slash + path
    return Parsed("", name, "", "", f"{scheme}/{name}")


class _Kind(NamedTuple):
    name: str
    prefix: str  #: the driver compares the scheme as it stands, with its case
    parse: Callable[[str], Parsed]


#: By scheme.
KINDS: Mapping[str, _Kind] = {
    scheme: _Kind(name, f"{scheme}://", parse)
    for name, parse, schemes in (
        ("file", _file, ("file", "filesystem")),
        ("s3", _s3, _S3_SCHEMES),
        ("swift", _swift, _SWIFT_SCHEMES),
        ("rbd", _rbd, ("rbd",)),
        ("cinder", _cinder, ("cinder",)),
        ("vmware", _vmware, ("vsphere",)),
        ("http", _http, ("http", "https")),
    )
    for scheme in schemes
}


def parse(url: str) -> tuple[str, Parsed]:
    """Return the kind of store that a URL is of, or its scheme if no kind is known, and its parts.

    :raises BadUrlError: no object can be told from the URL.
    """
    scheme = url.partition(":")[0]
    kind = KINDS.get(scheme)
    if kind is None:
        return scheme, _unknown(url)
    if not url.startswith(kind.prefix):
        raise BadUrlError("the location is no URL of its driver's")
    parsed = kind.parse(url)
    # An empty name stands for the place; servers resolve dots; C libraries cut names at a NUL.
    if parsed.name in {"", ".", ".."} or "\0" in parsed.name or "\0" in (parsed.place or ""):
        raise BadUrlError("the location names no object")
    return kind.name, parsed


#: A part of a path of plain characters; one that is not dots alone; and whatever is before it.
_PART = r"""[!"$-.0->@-Z\\^-~]+"""
_NAME = r"""[0-9A-Za-z_-][!"$-.0->@-Z\\^-~]*"""
_BEFORE = r"""(?:[!"$->@-Z\\^-~]*/)?"""

#: The commonest spellings, by scheme, and how their keys begin: so to read all locations of a
#: registry takes little longer.
_TIDY: Mapping[str, tuple[str, Callable[[str], re.Match[str] | None]]] = {
    scheme: (f"{kind}/", re.compile(re.escape(scheme) + pattern).fullmatch)
    for kind, schemes, pattern in (
        ("file", ("file",), f":///{_BEFORE}({_NAME})"),
        ("rbd", ("rbd",), f"://{_PART}/[0-9A-Za-z_.-]+/([0-9A-Za-z_-]+)/{_PART}"),
        ("s3", _S3_SCHEMES, f"://{_PART}/{_BEFORE}({_NAME}/{_NAME})"),
        ("swift", _SWIFT_SCHEMES, f"://{_PART}/{_BEFORE}({_NAME}/(?!{_SEGMENT}$){_NAME})"),
    )
    for scheme in schemes
}


def tidy_key(url: str) -> str | None:
    """Return what :func:`index_key` does for the commonest URLs; None for all others."""
    known = _TIDY.get(url.partition(":")[0])
    if known is None:
        return None
    prefix, pattern = known
    found = pattern(url)
    return None if found is None else prefix + found[1]


def place_key(url: str) -> str:
    """Return a text that is equal for all URLs of one place, as a bucket or a directory is.

    :raises BadUrlError: no object can be told from the URL.
    """
    kind, parsed = parse(url)
    return f"{kind}/{parsed.place or ''}"


def key_and_place(url: str) -> tuple[str, str]:
    """Return :func:`index_key` and :func:`place_key` of a URL, for the commonest ones in short.

    :raises BadUrlError: no object can be told from the URL.
    """
    key = tidy_key(url)
    if key is None:
        kind, parsed = parse(url)
        return parsed.key, f"{kind}/{parsed.place or ''}"
    # Of these the place follows from what stands before the name, which many share.
    return key, _place_before(url.rsplit("/", 2 if url.startswith("rbd:") else 1)[0])


@functools.lru_cache(maxsize=1024)
def _place_before(text: str) -> str:
    return place_key(f"{text}/x/x" if text.startswith("rbd:") else f"{text}/x")


def index_key(url: str) -> str:
    """Return a text that is equal for all URLs of one object, and rarely equal for others.

    :raises BadUrlError: no object can be told from the URL.
    """
    return parse(url)[1].key
