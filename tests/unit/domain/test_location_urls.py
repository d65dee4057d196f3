# SPDX-License-Identifier: Apache-2.0
"""Locations' URLs, compared with how the real drivers read them."""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evscrub.domain.location_urls import (
    KINDS,
    BadUrlError,
    file_path,
    index_key,
    key_and_place,
    parse,
    place_key,
    service,
    tidy_key,
)
from evscrub.domain.object_identity import Identity, endpoint, identify, place_of
from tests.unit import drivers

VOLUME = "5f0f8a3c-54bd-4a8b-9b4f-0a8d6e9f3c11"
SCHEMES = {
    "file": ("file", "filesystem"),
    "s3": ("s3", "s3+http", "s3+https"),
    "swift": ("swift", "swift+http", "swift+https", "swift+config"),
    "rbd": ("rbd",),
    "cinder": ("cinder",),
    "vmware": ("vsphere",),
    "http": ("http", "https"),
}
#: Parts of URLs: few of each, so that many URLs are of the same object.
HOSTS = ("", "ref1", "h", "H", "h:443", "k:s@h", "service:glance:s@h", "service%3Aglance:s/s@h")
PARTS = (
    "",
    "a",
    "b",
    "A",
    "%61",
    ".",
    "..",
    "a\0b",
    "a%00b",
    "folder",
    "v3",
    "images",
    VOLUME,
    VOLUME.upper(),
    VOLUME.replace("-", ""),
    f"{VOLUME}-00001",
    f"{{{VOLUME}}}",
    f"urn:uuid:{VOLUME}",
)
TAILS = (
    "",
    "/",
    "//",
    "?x=1",
    "#x",
    "?dcPath=dc&dsName=ds",
    "?dsName=ds&dcPath=dc&x=1#y",
    ";x",
    " ",
)
INSIDE = ("", "", "", "", "\t", "\n", " ", "é", "@", "[", "://")


#: What comes before the path, of which the parts are two at random, and what comes after it.
SHAPES = {
    "file": (("/images/", "/images", "/"), ("",)),
    "s3": (("h/", "key:secret@h/"), ("",)),
    "swift": (("ref1/", "service:glance:s@h/v3/", "service%3Aglance:t@H:443/"), ("",)),
    "rbd": (("0a1b/images/", "0a1b/", ""), ("/snap", "/a", "")),
    "cinder": (("store/", ""), (f"/{VOLUME}", "")),
    "vmware": (("vc/folder/", "other/folder//"), ("?dcPath=dc&dsName=ds", "?dsName=ds&dcPath=/dc")),
    "http": (("h/", "u:p@H:443/"), ("?x=1", ";x")),
}


@st.composite
def urls(draw: st.DrawFn, kind: str) -> str:
    scheme = draw(st.sampled_from(SCHEMES[kind]))
    parts = st.sampled_from(PARTS)
    tail = draw(st.sampled_from(TAILS))
    if draw(st.booleans()):
        before, after = SHAPES[kind]
        path = "/".join(draw(st.lists(parts, min_size=1, max_size=2)))
        tail = draw(st.sampled_from(after)) + draw(st.sampled_from(["", "", tail]))
        return f"{scheme}://{draw(st.sampled_from(before))}{path}{tail}"
    host = draw(st.sampled_from(HOSTS))
    path = "/".join(draw(st.lists(parts, min_size=0, max_size=4)))
    return f"{scheme}://{host}{draw(st.sampled_from(INSIDE))}/{path}{tail}"


def ours(kind: str, url: str) -> Identity | None:
    try:
        return identify(drivers.config(kind), url)
    except BadUrlError:
        return None


def key(url: str) -> str | None:
    try:
        return index_key(url)
    except BadUrlError:
        return None


@pytest.mark.parametrize("kind", list(SCHEMES))
@given(data=st.data())
def test_same_object_for_the_driver_is_same_for_evscrub(kind: str, data: st.DataObject) -> None:
    written = data.draw(st.lists(urls(kind), min_size=2, max_size=30))
    by_object: dict[Any, list[str]] = {}
    for url in written:
        found = drivers.object_of(kind, url)
        if found is not None:
            by_object.setdefault(found, []).append(url)
    for same in by_object.values():
        for one, other in itertools.pairwise(same):
            assert ours(kind, one) == ours(kind, other), (one, other)
            assert key(one) == key(other), (one, other)


@pytest.mark.parametrize("kind", list(SCHEMES))
@given(data=st.data())
def test_deletable_url_identifies_an_object(kind: str, data: st.DataObject) -> None:
    """But for names of places and segments, and for what the driver's client cuts or resolves."""
    url = data.draw(urls(kind))
    found = drivers.object_of(kind, url)
    if found is None or ours(kind, url) is not None:
        return
    texts = [unquote(str(part)) for part in (found if isinstance(found, tuple) else (found,))]
    last = {text.rstrip("/").rpartition("/")[2] for text in texts}
    is_segment = kind == "swift" and f"{VOLUME}-00001" in last
    assert any("\0" in text for text in texts) or last & {"", ".", ".."} or is_segment


@pytest.mark.parametrize("kind", ["s3", "rbd", "cinder"])
@given(data=st.data())
def test_different_objects_for_the_driver_differ_for_evscrub(
    kind: str, data: st.DataObject
) -> None:
    """Else data would stay that nobody wants."""
    one, other = data.draw(urls(kind)), data.draw(urls(kind))
    first, second = drivers.object_of(kind, one), drivers.object_of(kind, other)
    if first is not None and second is not None and first != second:
        assert ours(kind, one) != ours(kind, other) or ours(kind, one) is None


@pytest.mark.parametrize("kind", list(SCHEMES))
@given(data=st.data())
def test_shortcut_returns_the_same_key(kind: str, data: st.DataObject) -> None:
    url = data.draw(urls(kind))
    assert tidy_key(url) in {None, key(url)}
    if key(url) is None:
        with pytest.raises(BadUrlError):
            key_and_place(url)
    else:
        assert key_and_place(url) == (index_key(url), place_key(url))


@given(st.text())
@example("file://[")
@example("vsphere://[x?dsName=a")
@example("http://[")
@example("s3://\u2100/b/k")
def test_any_url_is_parsed_or_rejected(text: str) -> None:
    for url in (text, *(f"{scheme}://{text}" for scheme in KINDS)):
        with contextlib.suppress(BadUrlError):
            parse(url)
        tidy_key(url)


@pytest.mark.parametrize(
    "url",
    [
        "file:///images/x",
        "s3+https://s3.example/glance/x",
        "s3://key:secret@s3.example/glance/x",
        "swift+config://ref1/glance/x",
        "swift+https://service%3Aglance:secret@keystone/v3/glance/x",
        "rbd://0a1b/images/x/snap",
    ],
)
def test_urls_written_by_glance_use_the_shortcut(url: str) -> None:
    assert tidy_key(url) == index_key(url) is not None
    assert key_and_place(url) == (index_key(url), place_key(url))


#: Spellings of one object, of which the first is what Glance writes.
SPELLINGS = {
    "s3": (
        "s3://s3.example/glance/x",
        "s3://KEY:SECRET@s3.example/glance/x",
        "s3://KEY:SEC/RET@s3.example/glance/x",
        "s3+http://s3.example/glance/x",
        "s3+https://s3.example:443/glance/x",
        "s3://S3.EXAMPLE/glance/x",
        "s3://other.example/glance/x",
        "s3://s3.example/glance/x/",
        "s3://s3.example//glance/x//",
        "s3://s3.example/../glance/x",
        "s3://s3.example/glance/x?x=1",
        "s3://s3.example/glance/x#x",
        "s3://s3.example/gla\tnce/x\n",
    ),
    "swift": (
        "swift+config://ref1/glance/x",
        "swift://service:glance:secret@keystone.example/v3/glance/x",
        "swift+https://service%3Aother:changed@KEYSTONE.example:443/v3/glance/x",
        "swift+http://service:glance:secret@keystone.example/glance/x",
        "swift+https://service:glance:secret@keystone.example/v2.0/glance/x?x#y",
    ),
    "rbd": (
        "rbd://0a1b/images/x/snap",
        "rbd://x",
        "rbd://other/images/x/other",
        "rbd://0a1b/im%61ges/%78/snap?x=1",
    ),
    "cinder": (
        f"cinder://store/{VOLUME}",
        f"cinder://{VOLUME}",
        f"cinder://other/{VOLUME.upper()}",
        f"cinder://store/{VOLUME.replace('-', '')}",
        f"cinder://store/x/{{{VOLUME}}}",
    ),
    "vmware": (
        "vsphere://vc/folder/openstack_glance/x?dcPath=dc&dsName=ds",
        "vsphere://other/folder/openstack_glance/x?dsName=ds&dcPath=dc&x=1#y",
        "vsphere://vc/folder//openstack_glance/./x?dcPath=/dc&dsName=ds",
        "vsphere://vc/folder/a/../openstack_glance/%78?dcPath=d%63&dsName=ds",
        "vsphere://vc/folder/Openstack_glance/X?dcPath=DC&dsName=Ds",
    ),
    "http": (
        "http://h/x?y=1",
        "https://user:secret@H:443/x?y=1#z",
        "http://h:80/x;z?y=1",
    ),
    "file": (
        "file:///images/x",
        "filesystem:///images/x",
        "file:///images/x?x=1",
        "file:///images/x#",
    ),
}


@pytest.mark.parametrize(
    ("kind", "url"),
    [(kind, url) for kind, spellings in SPELLINGS.items() for url in spellings[1:]],
)
def test_spellings_of_one_object(kind: str, url: str) -> None:
    assert ours(kind, url) is not None
    assert ours(kind, url) == ours(kind, SPELLINGS[kind][0])
    assert index_key(url) == index_key(SPELLINGS[kind][0])


#: URLs of another part of the store than the first of the spellings.
ELSEWHERE = {
    "file": "file:///images/other/x",
    "s3": "s3://s3.example/other/x",
    "swift": "swift+config://ref1/other/x",
    "rbd": "rbd://0a1b/other/x/snap",
    "vmware": "vsphere://vc/folder/x?dcPath=dc&dsName=other",
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_endpoint_does_not_depend_on_spelling(kind: str) -> None:
    def part(url: str) -> str:
        found = ours(kind, url)
        assert found is not None
        return endpoint(found, url)

    parts = {part(url) for url in SPELLINGS[kind]}
    # A reference, or its host: who is asked for a token.
    assert len(parts) <= (2 if kind == "swift" else 1)
    assert part(ELSEWHERE[kind]) not in parts
    places = {place_key(url) for url in SPELLINGS[kind]}
    # A short URL of rbd leaves the pool to the configuration.
    assert places - {"rbd/"} == {place_of(one) for one in parts}
    assert part(SPELLINGS[kind][0]) == part(SPELLINGS[kind][0].replace("x", "y"))
    assert not any(secret in one for one in parts for secret in ("SECRET", "SEC/RET", "changed"))


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("s3", "s3://h/glance/x", "s3://h/glance/X"),
        ("s3", "s3://h/glance/x", "s3://h/glance/%78"),
        ("s3", "s3://h/glance/x", "s3://h/other/x"),
        ("s3", "s3://h/glance/x", "s3://h/glance/x "),
        ("swift", "swift+config://ref1/glance/x", "swift+config://ref1/glance/y"),
        ("swift", "swift+config://ref1/glance/x", "swift://other:u:k@keystone.example/v3/glance/x"),
        (
            "swift",
            f"swift+config://ref1/glance/{VOLUME}",
            f"swift+config://ref1/glance/{VOLUME}-0001",
        ),
        ("rbd", "rbd://x", "rbd://0a1b/other/x/snap"),
        ("rbd", "rbd://x", "rbd://%78"),
        ("file", "file:///images/x", "file:///images/%78"),
    ],
)
def test_different_objects(kind: str, one: str, other: str) -> None:
    assert None is not ours(kind, one) != ours(kind, other)


@pytest.mark.parametrize(
    "url",
    [
        "s3://h/glance/",
        "s3://h/glance",
        "s3://h/glance/..",
        "s3://h//x",
        "swift+config://ref1/glance/",
        "swift+config://ref1/x",
        f"swift+config://ref1/glance/{VOLUME}-00001",
        f"swift://service:glance:s@keystone.example/v3/glance/{VOLUME.upper()}-123456?x",
        "rbd://",
        "rbd://0a1b/images/x",
        "rbd://0a1b/images/x%00y/snap",
        "rbd://0a1b/images%00/x/snap",
        "cinder://store/x",
        "cinder://store/",
        "vsphere://vc/folder/openstack_glance/x",
        "file://",
        "file:///images/",
        "file:///images/..",
        "file:///images/x\0",
        "file:/images/x",
    ],
)
def test_what_names_no_object(url: str) -> None:
    if url == "file:///images/":
        # To unlink a directory fails; a file of that name is not one that the driver can reach.
        assert parse(url)[1].name == "images"
        return
    with pytest.raises(BadUrlError):
        parse(url)


def test_file_path_is_the_path_that_the_driver_opens() -> None:
    assert file_path("file:///images/a%20b?x#y") == "/images/a%20b"
    assert file_path("file://relative/x") == "relative/x"
    with pytest.raises(BadUrlError):
        file_path("file://")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://h", "https://H:443/"),
        ("http://h:80", "h"),
        ("http://h.", "h"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://s3.eu-west-1.amazonaws.com", "http://s3.amazonaws.com"),
    ],
)
def test_addresses_of_one_service(one: str, other: str) -> None:
    assert service(one) == service(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://h", "http://h:8080"),
        ("http://h", "http://i"),
        ("http://h", "http://h/s3"),
        ("https://s3.amazonaws.com", "https://s3.cn-north-1.amazonaws.com.cn"),
        ("http://evilamazonaws.com", "http://amazonaws.com"),
        ("http://h:port", "http://h"),
    ],
)
def test_addresses_of_different_services(one: str, other: str) -> None:
    assert service(one) != service(other)


def test_long_url_is_parsed_quickly() -> None:
    """Whoever may write locations may write long ones."""
    began = time.thread_time()
    for end in ("", "?", " ", "/"):
        for part in ("a/", "aa", "/", "./", "@", ":"):
            for scheme in KINDS:
                url = f"{scheme}://h/{part * 30_000}{end}"
                tidy_key(url)
                key(url)
    assert time.thread_time() - began < 20
