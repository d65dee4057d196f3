# SPDX-License-Identifier: Apache-2.0
"""Accounts of swift stores with a file each, which the real driver reads in several threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from glance_store import location as store_location
from glance_store import multi_backend
from glance_store._drivers.swift import store as driver
from glance_store._drivers.swift import utils
from oslo_config import cfg

from evscrub.config.options import glance_opts
from evscrub.domain.object_identity import StoreConfig
from evscrub.domain.verdict import GONE, Outcome, Verdict
from evscrub.stores import configs
from evscrub.stores.backends import Stores, Target

#: References of each store's file. Both have that of glance_store's default, ref1.
REFERENCES = {"one": ["ref1"], "two": ["ref1", "ref2"]}
Accounts = list[tuple[str, str]]


class Site:
    """Two swift stores, and which objects were deleted with which user."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.deleted: Accounts = []
        site = self

        class Client:
            def __init__(self, _url: str, user: str, key: str, **options: Any) -> None:
                self._account = f"{options['tenant_name']}:{user}"
                assert key == f"secret of {self._account}"

            def head_object(self, _container: str, _name: str) -> dict[str, str]:
                return {}

            def delete_object(self, _container: str, name: str, **_: object) -> None:
                site.deleted.append((name, self._account))

        lines = ["[DEFAULT]", "enabled_backends = one:swift,two:swift"]
        for store in REFERENCES:
            self.write(store)
            lines += [f"[{store}]", f"swift_store_config_file = {self.file(store)}"]
        path = folder / "glance-api.conf"
        path.write_text("\n".join(lines))
        conf = self.conf = cfg.ConfigOpts()
        conf.register_opts(glance_opts)
        conf([], default_config_files=[str(path)], default_config_dirs=[])
        monkeypatch.setattr(multi_backend, "CONF", conf)
        monkeypatch.setattr(utils, "CONFIG", utils.CONFIG)
        monkeypatch.setattr(driver, "swiftclient", driver.swiftclient)
        self.stores = Stores(conf)
        driver.swiftclient = SimpleNamespace(**vars(driver.swiftclient) | {"Connection": Client})

    def file(self, store: str) -> Path:
        return self.folder / f"{store}.conf"

    def write(self, store: str) -> None:
        lines: list[str] = []
        for reference in REFERENCES[store]:
            user = f"{store}:{reference}"
            lines += [f"[{reference}]", f"user = {user}", f"key = secret of {user}"]
            lines += ["auth_address = http://keystone.test/v3"]
        self.file(store).write_text("\n".join(lines))

    def delete(self, store: str, reference: str = "ref1") -> Verdict:
        url = f"swift+config://{reference}/glance/{store}"
        return self.stores.delete(Target(store, url, "swift+config"))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(store_location, "SCHEME_TO_CLS_BACKEND_MAP", {})
    monkeypatch.setattr(store_location, "SCHEME_TO_CLS_MAP", {})
    return Site(tmp_path, monkeypatch)


def meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two threads wait for each other after each has read its file."""
    both = threading.Barrier(2)
    sections = utils.SwiftConfigParser.sections

    def wait(parser: Any) -> Any:
        both.wait(30)
        return sections(parser)

    monkeypatch.setattr(utils.SwiftConfigParser, "sections", wait)


def test_deletes_at_the_same_time_use_the_accounts_of_their_stores(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(monkeypatch)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(site.delete, ["one", "two"])) == [GONE, GONE]
    assert sorted(site.deleted) == [("one", "one:ref1"), ("two", "two:ref1")]


def test_identities_are_those_of_the_store_while_another_is_used(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are read again when a store is loaded, while the others delete."""
    before = site.stores.objects.configs
    assert {name: set(config.accounts) for name, config in before.items()} == {
        name: set(references) for name, references in REFERENCES.items()
    }
    meet(monkeypatch)

    def read(store: str) -> StoreConfig:
        return configs.read(site.conf, store, "swift", store, None)

    with ThreadPoolExecutor(2) as threads:
        assert dict(zip(before, threads.map(read, before), strict=True)) == before


def test_a_reference_of_another_store_s_file_is_unknown(site: Site) -> None:
    assert site.delete("two", "ref2") is GONE
    verdict = site.delete("one", "ref2")
    assert verdict.outcome is Outcome.CONFIGURATION
    assert site.deleted == [("two", "two:ref2")]


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("spoil", "outcome"),
    [
        (Path.unlink, Outcome.TRANSIENT),
        (replace_by_folder, Outcome.TRANSIENT),
        (lambda file: file.write_text(""), Outcome.TRANSIENT),
        (lambda file: file.write_text("key = topsecret"), Outcome.TRANSIENT),
        (lambda file: file.write_text("[ref1]\nuser = x\ntopsecret\n"), Outcome.TRANSIENT),
        (lambda file: file.write_bytes(b"[ref1]\nkey = topsecret\xff\n"), Outcome.TRANSIENT),
        (lambda file: file.write_text("[ref1]\nuser = x"), Outcome.CONFIGURATION),
    ],
    ids=["missing", "unreadable", "empty", "headless", "malformed", "undecodable", "incomplete"],
)
def test_a_file_that_is_being_replaced_deletes_nothing_and_is_read_again(
    site: Site,
    spoil: Callable[[Path], object],
    outcome: Outcome,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    spoil(site.file("one"))
    assert site.delete("one").outcome is outcome
    assert "topsecret" not in caplog.text
    assert site.deleted == []
    assert site.delete("two") is GONE
    if site.file("one").is_dir():
        site.file("one").rmdir()
    site.write("one")
    assert site.delete("one") is GONE
    assert site.deleted == [("two", "two:ref1"), ("one", "one:ref1")]
