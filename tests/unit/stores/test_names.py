# SPDX-License-Identifier: Apache-2.0
"""What the store of a location is called by commands that load no driver."""

from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from glance.common import crypt
from glance_store._drivers.swift.store import BaseStore
from glance_store.driver import Store
from oslo_config import cfg

from evscrub.config.options import glance_opts
from evscrub.domain.decisions import LocationRow
from evscrub.stores.names import StoreNames, store_names

KEY = "0123456789abcdef"


def row(value: str, store: str | None = None) -> LocationRow:
    now = datetime(2026, 1, 1)
    return LocationRow(1, value, store, "pending_delete", True, now, now)


def drivers() -> list[tuple[str, str]]:
    """Return the names of glance_store's drivers, the former ones too, with their schemes."""
    found = []
    for entry in entry_points(group="glance_store.drivers"):
        try:
            driver: type[Store] = entry.load()
        except ImportError:  # its client is not installed
            continue
        if entry.name == "no_conf":
            continue
        if not isinstance(driver, type):  # Swift's is a function that chooses one
            driver = BaseStore
        found += [(entry.name, scheme) for scheme in object.__new__(driver).get_schemes()]
    return found


@pytest.mark.parametrize(("name", "scheme"), drivers())
@pytest.mark.parametrize("encrypted", [False, True], ids=["", "encrypted"])
def test_a_single_store_is_called_as_agents_call_it(
    name: str, scheme: str, encrypted: bool
) -> None:
    url = f"{scheme}://user:secret@host/container/object"
    value = crypt.urlsafe_encrypt(KEY, url, 16) if encrypted else url
    assert StoreNames({name: name, "other": "other"}, KEY).of(row(value)) == name


def test_drivers_are_looked_at() -> None:
    assert {name for name, _ in drivers()} >= {"file", "http", "s3", "swift", "rbd"}


@pytest.mark.parametrize(
    ("types", "location", "wanted"),
    [
        ({"fast": "rbd", "cold": "s3"}, row("s3+https://k:s@h/b/o"), "cold"),
        ({"fast": "rbd", "cold": "s3"}, row("s3+https://k:s@h/b/o", "fast"), "fast"),
        ({"fast": "rbd", "cold": "s3"}, row("s3://k:s@h/b/o", "gone"), "gone"),
        ({"a": "s3", "b": "s3"}, row("s3+https://k:s@h/b/o"), "s3"),
        ({"a": "file"}, row("s3+https://k:s@h/b/o"), "s3"),
        ({"a": "file"}, row("no URL"), "?"),
        ({}, row("swift+config://ref/c/o"), "swift"),
    ],
)
def test_several_stores(types: dict[str, str], location: LocationRow, wanted: str) -> None:
    assert StoreNames(types).of(location) == wanted


@pytest.mark.parametrize(
    ("location", "wanted"),
    [
        (row("file:///x"), ["a", "b"]),
        (row("file:///x", "a"), ["a"]),
        (row("file:///x", "gone"), ["gone"]),
        (row("s3://k:s@h/b/o"), ["c"]),
        (row("rbd://x"), ["rbd"]),
        (row("no URL"), ["?"]),
    ],
)
def test_stores_that_may_have_a_location(location: LocationRow, wanted: list[str]) -> None:
    names = StoreNames({"a": "file", "b": "filesystem", "c": "s3"})
    assert names.candidates(location) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ["file", "http"]),
        ("[glance_store]\nstores = s3\n", ["s3"]),
        ("[DEFAULT]\nenabled_backends = fast:rbd,cold:s3\n", ["cold", "fast"]),
    ],
)
def test_the_configuration_names_them(text: str, wanted: list[str], tmp_path: Path) -> None:
    path = tmp_path / "glance-api.conf"
    path.write_text(text)
    conf = cfg.ConfigOpts()
    conf.register_opts(glance_opts)
    conf([], default_config_files=[str(path)], default_config_dirs=[])
    assert store_names(conf).names == wanted
