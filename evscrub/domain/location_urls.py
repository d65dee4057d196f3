# SPDX-License-Identifier: Apache-2.0
"""Parse location URLs as the store drivers do. Pure.

One function for each driver of glance_store parses a URL as the driver's ``StoreLocation`` does,
and returns the parts that the driver's ``delete`` uses:

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

:mod:`evscrub.domain.object_identity` adds the parts that come from the store's configuration.
"""

import functools
import re
from collections.abc import Callable, Mapping
from posixpath import normpath
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlparse, urlsplit


class BadUrlError(ValueError):
    """A URL does not identify an object; the driver rejects most such URLs too.

    The message contains nothing of the URL.
    """


class Parsed(NamedTuple):
    """The parts of a URL, without the store's configuration.

    :param place: bucket, container, pool, directory, or datacenter and datastore; None if the URL
        does not name it.
    :param name: name of the object in its place.
    :param user: user in the URL, if it determines the object; else empty.
    :param authority: the service that the URL names, even if a delete ignores it.
    :param key: equal for all URLs of one object, whatever the configuration of the stores.
    """

    place: str | None
    name: str
    user: str
    authority: str
    key: str


#: A URL of only these characters can be split without urllib, which is slower.
_is_plain = re.compile(r"""[!"$->@-Z\\^-~]+""").fullmatch
_S3_SCHEMES = ("s3", "s3+http", "s3+https")
_SWIFT_SCHEMES = ("swift", "swift+http", "swift+https", "swift+config")
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: Names that are no bucket or container; a server may resolve dots.
_NO_PLACES = frozenset({"", ".", ".."})
#: The Swift driver stores the segments of a large object in its container, under the object's name
#: with a suffix, and deletes them with it. A location of a segment alone is rejected, because it
#: may be a part of another image's data.
_SEGMENT = r"[0-9A-Fa-f-]{36}-[0-9]{5,}"
_is_segment = re.compile(_SEGMENT).fullmatch
_S3_DEPTH = 3
_RBD_DEPTH = 4
#: The vmware driver removes this many characters from the path without a look at them.
_FOLDER = len("/folder")


def _split(url: str) -> tuple[str, str]:
    """Return a URL's authority and path, as :func:`urllib.parse.urlsplit` does."""
    if _is_plain(url):
        host, slash, path = url.partition("://")[2].partition("/")
        return host, slash + path
    try:
        pieces = urlsplit(url)
    except ValueError:
        raise BadUrlError("the location is not a URL") from None
    return pieces.netloc, pieces.path


def service(url: str) -> str:
    """Normalize the address of a service: no scheme, no default port, lower case.

    All hosts of Amazon S3 are one service, because names of buckets are unique in it.

    :param url: a URL, or an address without a scheme, which is taken as https.
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
        # Without an authority the driver takes the first part of the path as the host.
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
    # The spellings that the driver accepts as a UUID; Cinder's database may be case-insensitive.
    text = url.rpartition("/")[2].replace("urn:", "").replace("uuid:", "")
    volume = text.strip("{}").replace("-", "").lower()
    if re.fullmatch("[0-9a-f]{32}", volume) is None:
        raise BadUrlError("the location has no volume's id")
    return Parsed("", volume, "", "", f"cinder/{volume}")


def _file(url: str) -> Parsed:
    path = file_path(url)
    directory, _, name = path.rstrip("/").rpartition("/")
    # A relative path depends on the working directory of the process.
    place = (directory or "/") if path.startswith("/") else None
    return Parsed(place, name, "", "", f"file/{name}")


def file_path(url: str) -> str:
    """Return the path that the file driver opens and unlinks; the driver decodes no escapes.

    :raises BadUrlError: the URL has no path.
    """
    path = "".join(_split(url)).strip()
    if not path:
        raise BadUrlError("the location has no path")
    return path


def _vmware(url: str) -> Parsed:
    try:
        pieces = urlsplit(url)
    except ValueError:
        raise BadUrlError("the location is not a URL") from None
    values = parse_qs(pieces.query)
    if not pieces.query:
        raise BadUrlError("the location names no datastore")
    center, store = values.get("dcPath"), values.get("dsName")
    # Whether vSphere's names are case-insensitive, and which spellings of a path are equal, depends
    # on the datastore. The key is the same for all that may be equal.
    place = f"{center[0].strip('/')}:{store[0]}".casefold() if center and store else None
    name = normpath("/" + unquote(pieces.path[_FOLDER:])).lstrip("/").casefold()
    return Parsed(place, name, "", pieces.netloc, f"vmware/{name}")


def _http(url: str) -> Parsed:
    try:
        pieces = urlparse(url)
    except ValueError:
        raise BadUrlError("the location is not a URL") from None
    # The default ports of both schemes, so that URLs that differ only in the scheme are one object.
    host = re.sub(r"\.?(:(80|443)?)?$", "", pieces.netloc.rpartition("@")[2].lower())
    name = f"{host}{pieces.path}?{pieces.query}"
    return Parsed("", name, "", host, f"http/{name}")


def _unknown(url: str) -> Parsed:
    """Parse a URL of a driver that is not glance_store's; only credentials are left out."""
    scheme, _, rest = url.partition(":")
    authority, slash, path = rest.lstrip("/").partition("/")
    name = authority.rpartition("@")[2] + slash + path
    return Parsed("", name, "", "", f"{scheme}/{name}")


class _Kind(NamedTuple):
    name: str
    prefix: str  #: case-sensitive, as the driver compares it
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
    """Return the kind of a URL's store, or its scheme if the kind is not known, and its parts.

    :raises BadUrlError: the URL does not identify an object.
    """
    scheme = url.partition(":")[0]
    kind = KINDS.get(scheme)
    if kind is None:
        return scheme, _unknown(url)
    if not url.startswith(kind.prefix):
        raise BadUrlError("the location is not a URL of its driver")
    parsed = kind.parse(url)
    # An empty name is the place itself; servers resolve dots; C libraries end names at a NUL.
    if parsed.name in {"", ".", ".."} or "\0" in parsed.name or "\0" in (parsed.place or ""):
        raise BadUrlError("the location names no object")
    return kind.name, parsed


#: Regular expressions of a path's part, of one that is not only dots, and of all parts before it.
_PART = r"""[!"$-.0->@-Z\\^-~]+"""
_NAME = r"""[0-9A-Za-z_-][!"$-.0->@-Z\\^-~]*"""
_BEFORE = r"""(?:[!"$->@-Z\\^-~]*/)?"""

#: Patterns of the most common spellings and the prefixes of their keys, by scheme: a shortcut that
#: keeps the index of a whole registry fast to build.
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
    """Return :func:`index_key` of a URL in one of the most common spellings, else None."""
    known = _TIDY.get(url.partition(":")[0])
    if known is None:
        return None
    prefix, pattern = known
    found = pattern(url)
    return None if found is None else prefix + found[1]


def place_key(url: str) -> str:
    """Return a key that is equal for all URLs of one place, such as a bucket or directory.

    :raises BadUrlError: the URL does not identify an object.
    """
    kind, parsed = parse(url)
    return f"{kind}/{parsed.place or ''}"


def key_and_place(url: str) -> tuple[str, str]:
    """Return :func:`index_key` and :func:`place_key` of a URL; fast for common spellings.

    :raises BadUrlError: the URL does not identify an object.
    """
    key = tidy_key(url)
    if key is None:
        kind, parsed = parse(url)
        return parsed.key, f"{kind}/{parsed.place or ''}"
    # The place follows from the part before the name, which many URLs share: it is cached.
    return key, _place_before(url.rsplit("/", 2 if url.startswith("rbd:") else 1)[0])


@functools.lru_cache(maxsize=1024)
def _place_before(text: str) -> str:
    return place_key(f"{text}/x/x" if text.startswith("rbd:") else f"{text}/x")


def index_key(url: str) -> str:
    """Return a key that is equal for all URLs of one object, and rarely equal for others.

    :raises BadUrlError: the URL does not identify an object.
    """
    return parse(url)[1].key
