# SPDX-License-Identifier: Apache-2.0
"""Stores that cannot be used, with the real drivers: none stops another, and each says why."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from glance_store import exceptions, multi_backend
from glance_store import location as store_location
from oslo_config import cfg
from stevedore.driver import DriverManager

from evscrub.config.options import glance_opts
from evscrub.domain.decisions import LocationRow
from evscrub.domain.verdict import GONE, STORE_CANNOT_DELETE, STORE_NOT_LOADED, StoreNotUsableError
from evscrub.stores import faults, loading
from evscrub.stores.backends import Stores, Target
from evscrub.stores.loading import StoreLoader
from tests.functional.store_servers import FakeLibraries

DRIVERS = "glance_store._drivers."
NOW = datetime(2026, 1, 1)
S3 = """
s3_store_host = http://s3.test
s3_store_access_key = accesskey
s3_store_secret_key = topsecret
s3_store_bucket = glance
s3_store_bucket_url_format = path
"""
SWIFT = """
swift_store_auth_address = http://swift.test/v3
swift_store_user = service:glance
swift_store_key = topsecret
"""
CINDER = """
cinder_store_user_name = glance
cinder_store_password = topsecret
cinder_store_project_name = service
cinder_store_auth_address = http://cinder.test/v3
"""
CINDER_APPLICATION = """
cinder_store_application_credential_id = a
cinder_store_application_credential_secret = topsecret
cinder_store_auth_address = http://cinder.test/v3
"""
VMWARE = """
vmware_server_host = vmware.test
vmware_server_username = glance
vmware_server_password = topsecret
vmware_datastores = dc:store
"""
SEVERAL_DIRECTORIES = """
filesystem_store_datadir =
filesystem_store_datadirs = {tmp}/also:1
filesystem_store_datadirs = {tmp}/un/mounted : 2
"""
NewConf = Callable[[str], cfg.ConfigOpts]


@pytest.fixture
def new_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NewConf:
    """Return a function that reads a glance-api.conf, with {tmp} in it for a folder.

    The folder has the directories `good` and `also`.
    """
    monkeypatch.setattr(store_location, "SCHEME_TO_CLS_BACKEND_MAP", {})
    monkeypatch.setattr(store_location, "SCHEME_TO_CLS_MAP", {})
    for name in ("good", "also"):
        (tmp_path / name).mkdir()

    def new_conf(text: str) -> cfg.ConfigOpts:
        path = tmp_path / "glance-api.conf"
        path.write_text(text.replace("{tmp}", str(tmp_path)))
        conf = cfg.ConfigOpts()
        conf.register_opts(glance_opts)
        conf([], default_config_files=[str(path)], default_config_dirs=[])
        monkeypatch.setattr(multi_backend, "CONF", conf)
        return conf

    return new_conf


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLibraries:
    """Give the drivers of rbd and cinder their clients' libraries."""
    forget_drivers(monkeypatch)
    libraries = FakeLibraries(tmp_path / "asked")
    for name, module in libraries.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return libraries


@pytest.fixture(autouse=True)
def _drivers() -> Iterator[None]:
    """Leave the drivers' modules as they were found: importing them takes long."""
    found = {name: module for name, module in sys.modules.items() if name.startswith(DRIVERS)}
    yield
    for name in [name for name in sys.modules if name.startswith(DRIVERS)]:
        del sys.modules[name]
    sys.modules.update(found)


def forget_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the drivers be imported again, with what is installed by then."""
    for name in list(sys.modules):
        if name.startswith(DRIVERS):
            monkeypatch.delitem(sys.modules, name)


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let modules be as if they were not installed."""
    forget_drivers(monkeypatch)
    for name in list(sys.modules):
        if name.partition(".")[0] in modules:
            monkeypatch.delitem(sys.modules, name)
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)


def row(value: str, store: str | None = None) -> LocationRow:
    return LocationRow(1, value, store, "pending_delete", True, NOW, NOW)


def beside_good(kind: str, options: str = "") -> str:
    """Return a configuration of a good file store and another one."""
    return (
        f"[DEFAULT]\nenabled_backends = bad:{kind},good:file\n"
        f"[good]\nfilesystem_store_datadir = {{tmp}}/good\n[bad]\n{options}\n"
    )


def single(kind: str, options: str = "") -> str:
    """Return a configuration of before there were several stores, with a file store that works."""
    files = "filesystem_store_datadir = {tmp}/good"
    return f"[glance_store]\nstores = file,{kind}\n{files}\n{options}\n"


def delete_good(stores: Stores, directory: Path, name: str | None = "good") -> None:
    """See that the good store deletes."""
    path = directory / "good" / "x"
    path.write_bytes(b"data")
    target = stores.resolve(row(f"file://{path}", name))
    assert stores.delete(target) == GONE
    assert not path.exists()


#: What is wrong by type and options, the reason, and what must be said.
BROKEN = [
    ("cinder", "", STORE_NOT_LOADED, "modules cinderclient, os_brick and oslo_privsep, not"),
    ("rbd", "", STORE_NOT_LOADED, "Python modules rados and rbd, not installed here: install Ceph"),
    ("vmware", "", STORE_NOT_LOADED, "the Python module oslo_vmware, not installed here"),
    ("vmware", VMWARE, STORE_NOT_LOADED, "install evscrub[vmware]"),
    ("swift", "", STORE_NOT_LOADED, "A value for swift_store_auth_address is required"),
    ("swift", SWIFT.replace("topsecret", ""), STORE_NOT_LOADED, "auth_address is required"),
    ("swift", "swift_store_config_file = /no/such", STORE_NOT_LOADED, "swift config file"),
    ("swift", "swift_store_multi_tenant = True", STORE_CANNOT_DELETE, "multi_tenant = False"),
    ("s3", "", STORE_NOT_LOADED, "Could not find s3_store_host"),
    ("s3", S3.replace("topsecret", ""), STORE_NOT_LOADED, "Could not find s3_store_secret_key"),
    ("s3", S3.replace("s3.test", "[s3"), STORE_CANNOT_DELETE, "correct s3_store_host"),
    ("s3", S3.replace("http://", ""), STORE_CANNOT_DELETE, "Invalid endpoint: s3.test"),
    (
        "s3",
        S3.replace("= path", "= virtual").replace("= glance", "= Glance_"),
        STORE_CANNOT_DELETE,
        "InvalidDNSNameError",
    ),
    ("flie", "", STORE_NOT_LOADED, "no type of store 'flie' (did you mean file)"),
    ("ceph", "", STORE_NOT_LOADED, "(there are cinder, file, http, rbd, s3, swift, vmware)"),
]


@pytest.mark.parametrize(
    "text", ["[DEFAULT]\nenabled_backends = good:file\n[good]\n", "[glance_store]\nstores = file\n"]
)
def test_only_drivers_of_enabled_stores_are_imported(
    new_conf: NewConf, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Those of the others need tenths of a second and much memory, for their client libraries."""
    forget_drivers(monkeypatch)
    stores = Stores(new_conf(f"{text}filesystem_store_datadir = {{tmp}}/good\n"))
    assert stores.usable == stores.names
    assert [name for name in sys.modules if name.startswith(DRIVERS)] == [f"{DRIVERS}filesystem"]


#: Where that of most kinds is no URL of an object.
URLS = {
    "cinder": "cinder://7c1f1a5e-0b3c-4d49-8a6b-0f7a2f6f1c11",
    "rbd": "rbd://fsid/images/x/snap",
    "vmware": "vsphere://host/folder/x?dcPath=d&dsName=s",
}


@pytest.mark.parametrize(("kind", "options", "reason", "said"), BROKEN)
@pytest.mark.parametrize("configuration", [beside_good, single], ids=["several", "single"])
def test_unusable_store_does_not_affect_others(
    new_conf: NewConf,
    tmp_path: Path,
    configuration: Callable[..., str],
    kind: str,
    options: str,
    reason: str,
    said: str,
) -> None:
    stores = Stores(new_conf(configuration(kind, options)))
    several = configuration is beside_good
    bad = "bad" if several else kind
    assert list(stores.faults) == [bad]
    assert stores.faults[bad].reason == reason
    assert said in stores.faults[bad].hint
    assert "topsecret" not in stores.faults[bad].hint
    delete_good(stores, tmp_path, "good" if several else None)
    assert bad in stores.names
    assert bad not in stores.usable
    assert bad in stores.deletable
    url = URLS.get(kind, f"{faults.schemes(kind)[0]}://a/b/c")
    with pytest.raises(StoreNotUsableError) as caught:
        stores.resolve(row(url, "bad" if several else None))
    assert (caught.value.reason, caught.value.store) == (reason, bad)
    assert said in caught.value.hint
    if several:  # a row of before there were several stores
        with pytest.raises(StoreNotUsableError) as caught:
            stores.resolve(row(url))
        assert caught.value.store == bad


@pytest.mark.costly
@pytest.mark.parametrize(
    ("kind", "options", "modules"),
    [
        ("swift", SWIFT, ["swiftclient"]),
        ("s3", S3, ["boto3", "botocore"]),
        ("cinder", CINDER, ["os_brick"]),
        ("cinder", CINDER, ["cinderclient"]),
        ("rbd", "", ["rados"]),
    ],
)
def test_client_library_installed_later_is_used(
    new_conf: NewConf,
    libraries: FakeLibraries,
    tmp_path: Path,
    kind: str,
    options: str,
    modules: list[str],
) -> None:
    """The drivers remember that they could not import it."""
    with pytest.MonkeyPatch.context() as patch:
        without(patch, *modules)
        stores = Stores(new_conf(beside_good(kind, options)))
        hint = stores.faults["bad"].hint
        assert all(module in hint for module in modules)
        assert "not installed here" in hint
        assert stores.load() == set()
        delete_good(stores, tmp_path)
    assert stores.load() == {"bad"}
    assert stores.faults == {}
    assert stores.usable == ["bad", "good"]
    assert stores.load() == set()


def test_log_of_a_loading_driver_is_recognized(
    new_conf: NewConf, caplog: pytest.LogCaptureFixture
) -> None:
    """Each attempt, once a minute, would log it again."""
    stores = Stores(new_conf(beside_good("swift")))
    said = [record for record in caplog.records if record.name.startswith("glance_store.")]
    assert len(said) >= 2
    assert all(map(loading.is_about_loading, said))
    caplog.clear()
    logging.getLogger("glance_store.driver").error("not while loading")
    (other,) = caplog.records
    assert not loading.is_about_loading(other)
    assert list(stores.faults) == ["bad"]


class TestCeph:
    @pytest.mark.parametrize("alone", [True, False])
    def test_that_is_away(
        self,
        new_conf: NewConf,
        libraries: FakeLibraries,
        monkeypatch: pytest.MonkeyPatch,
        alone: bool,
    ) -> None:
        """Alone, its driver raises an error of its own that says nothing."""
        rados: Any = sys.modules["rados"]

        def connect(_: object) -> None:
            raise rados.ObjectNotFound("error connecting to the cluster")

        with monkeypatch.context() as patch:
            patch.setattr(rados.Rados, "connect", connect)
            text = "[DEFAULT]\nenabled_backends = bad:rbd\n" if alone else beside_good("rbd")
            stores = Stores(new_conf(text))
            assert stores.faults["bad"].reason == STORE_NOT_LOADED
            assert "error connecting to the cluster" in stores.faults["bad"].hint
            assert "[bad] or [backend_defaults] of glance-api.conf" in stores.faults["bad"].hint
            assert stores.load() == set()
        assert stores.load() == {"bad"}
        assert stores.delete(Target("bad", "rbd://fsid/images/x/snap", "rbd")) == GONE
        assert libraries.asked() == ["x"]

    def test_that_hangs(
        self,
        new_conf: NewConf,
        libraries: FakeLibraries,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Others wait for it a while; it is not asked a second time, and used when it answers."""
        rados: Any = sys.modules["rados"]
        answer, reached, asked = threading.Event(), threading.Event(), []

        def connect(_: object) -> None:
            asked.append(1)
            reached.set()
            answer.wait(60)

        monkeypatch.setattr(rados.Rados, "connect", connect)
        loader = StoreLoader(new_conf(beside_good("rbd")), frozenset, 0.0)
        usable = loader.load()
        loader._threads["good"].join()  # it is late too
        assert usable | loader.load() == {"good"}
        assert "has not been loaded yet" in loader.faults["bad"].hint
        assert reached.wait(60)
        assert loader.load() == set()
        assert len(asked) == 1
        answer.set()
        loader._threads["bad"].join()
        assert loader.faults == {}
        assert loader.load() == {"bad"}
        assert loader.load() == set()
        assert len(asked) == 1


@pytest.mark.parametrize("kind", ["swift", "s3", "file"])
def test_drivers_are_imported_one_after_the_other(
    new_conf: NewConf, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A slow import takes longer than it is waited for, and modules may import each other."""
    forget_drivers(monkeypatch)
    importing, overlap = threading.Semaphore(), threading.Event()

    def make(namespace: str, kind: str) -> Any:
        if not importing.acquire(blocking=False):
            overlap.set()
            return DriverManager(namespace, kind)
        overlap.wait(0.2)
        manager: Any = DriverManager(namespace, kind)
        importing.release()
        return manager

    monkeypatch.setattr(loading, "DriverManager", make)
    options = {"swift": SWIFT, "s3": S3, "file": "filesystem_store_datadir = {tmp}/also"}
    conf = new_conf(beside_good(kind, options[kind]))
    loader = StoreLoader(conf, frozenset, 0.0)
    loader.load()
    for thread in loader._threads.values():
        thread.join()
    assert not overlap.is_set()
    assert loader.faults == {}


@pytest.mark.parametrize(("stores", "seconds"), [(1, 10), (5, 10), (20, 20)])
def test_drivers_that_hang_share_one_wait(
    new_conf: NewConf, monkeypatch: pytest.MonkeyPatch, stores: int, seconds: float
) -> None:
    now = 0.0

    class Hanging:
        def join(self, seconds: float) -> None:
            nonlocal now
            now += seconds

    backends = ",".join(f"edge{number}:rbd" for number in range(stores))
    loader = StoreLoader(new_conf(f"[DEFAULT]\nenabled_backends = {backends}\n"), frozenset)
    monkeypatch.setattr(loading, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(loader, "_start", lambda _name: Hanging())
    loader.load()
    assert now == pytest.approx(seconds)


class TestCinder:
    @pytest.mark.parametrize("option", CINDER.split("\n")[1:-1])
    @pytest.mark.parametrize("more", ["", "cinder_volume_type = fast"])
    def test_without_a_service_user(
        self, new_conf: NewConf, libraries: FakeLibraries, option: str, more: str
    ) -> None:
        stores = Stores(new_conf(beside_good("cinder", CINDER.replace(option, "") + more)))
        assert stores.faults["bad"].reason == STORE_CANNOT_DELETE
        assert option.partition(" ")[0] in stores.faults["bad"].hint

    @pytest.mark.parametrize("options", [CINDER, CINDER_APPLICATION])
    def test_with_one(self, new_conf: NewConf, libraries: FakeLibraries, options: str) -> None:
        assert Stores(new_conf(beside_good("cinder", options))).faults == {}
        defaults = f"[backend_defaults]\n{options}"
        assert Stores(new_conf(beside_good("cinder") + defaults)).faults == {}


class TestFile:
    def test_directory_of_the_backend_defaults(self, new_conf: NewConf, tmp_path: Path) -> None:
        """The driver's own default is not looked at, nor made, where this is set."""
        text = (
            "[DEFAULT]\nenabled_backends = good:file\n"
            "[backend_defaults]\nfilesystem_store_datadir = {tmp}/good\n"
        )
        stores = Stores(new_conf(text))
        assert stores.faults == {}
        delete_good(stores, tmp_path)

    @pytest.mark.parametrize(
        "text",
        [
            "[DEFAULT]\nenabled_backends = good:file\n[good]\n{options}",
            "[DEFAULT]\nenabled_backends = good:file\n[backend_defaults]\n{options}",
            "[glance_store]\nstores = file\n{options}",
        ],
    )
    def test_an_unlink_ends_with_its_delete(
        self, new_conf: NewConf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        """The driver would leave one that takes long to a thread of its own."""
        options = "filesystem_store_datadir = {tmp}/good\nfilesystem_store_timeout = 1\n"
        stores = Stores(new_conf(text.replace("{options}", options)))
        unlink, threads = os.unlink, []

        def unlinking(path: str) -> None:
            threads.append(threading.current_thread())
            unlink(path)

        monkeypatch.setattr("glance_store._drivers.filesystem.os.unlink", unlinking)
        delete_good(stores, tmp_path, "good" if "enabled_backends" in text else None)
        assert threads == [threading.current_thread()]

    def test_its_own_wins(self, new_conf: NewConf, tmp_path: Path) -> None:
        text = beside_good("file", "filesystem_store_datadir = {tmp}/also")
        text += "[backend_defaults]\nfilesystem_store_datadir = {tmp}/missing\n"
        assert Stores(new_conf(text)).faults == {}
        assert not (tmp_path / "missing").exists()

    @pytest.mark.parametrize(
        "options",
        [
            "[bad]\nfilesystem_store_datadir = {tmp}/un/mounted",
            "[backend_defaults]\nfilesystem_store_datadir = {tmp}/un/mounted",
            f"[bad]\n{SEVERAL_DIRECTORIES}",
        ],
    )
    def test_missing_directory(self, new_conf: NewConf, tmp_path: Path, options: str) -> None:
        stores = Stores(new_conf(beside_good("file") + options))
        assert stores.faults["bad"].reason == STORE_NOT_LOADED
        assert f"directory {tmp_path}/un/mounted does not exist" in stores.faults["bad"].hint
        delete_good(stores, tmp_path)
        assert stores.load() == set()
        assert not (tmp_path / "un").exists()
        (tmp_path / "un" / "mounted").mkdir(parents=True)
        assert stores.load() == {"bad"}

    def test_missing_group(self, new_conf: NewConf, tmp_path: Path) -> None:
        """The default of the driver counts, as for Glance."""
        text = beside_good("file").replace("[bad]", "")
        stores = Stores(new_conf(text))
        if not Path("/var/lib/glance/images").is_dir():
            assert "directory /var/lib/glance/images does not exist" in stores.faults["bad"].hint
        delete_good(stores, tmp_path)

    def test_missing_directory_of_an_acknowledged_store(
        self, new_conf: NewConf, tmp_path: Path
    ) -> None:
        acknowledged: list[str] = []
        conf = new_conf(beside_good("file", "filesystem_store_datadir = {tmp}/gone"))
        stores = Stores(conf, lambda: acknowledged)
        assert list(stores.faults) == ["bad"]
        acknowledged.append("bad")
        assert stores.load() == {"bad"}

    @pytest.mark.parametrize("configuration", [beside_good, single], ids=["several", "single"])
    def test_read_only_until_it_is_mounted_for_writing(
        self,
        new_conf: NewConf,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        configuration: Callable[..., str],
    ) -> None:
        """For root, whom no permission stops, it is as on a file system mounted read-only."""
        access = os.access

        def no_access(path: str, mode: int) -> bool:
            return not (str(path).endswith("also") and mode & os.W_OK) and access(path, mode)

        several = configuration is beside_good
        text = beside_good("file", "filesystem_store_datadir = {tmp}/also")
        if not several:
            text = "[glance_store]\nstores = file\nfilesystem_store_datadir = {tmp}/also\n"
        name = "bad" if several else "file"
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", no_access)
            stores = Stores(new_conf(text))
            assert stores.faults[name].reason == STORE_CANNOT_DELETE
            assert f"{tmp_path}/also is not writable" in stores.faults[name].hint
            assert stores.load() == set()
        assert stores.load() == {name}
        path = tmp_path / "also" / "x"
        path.write_bytes(b"data")
        target = stores.resolve(row(f"file://{path}", name if several else None))
        assert stores.delete(target) == GONE

    def test_wrong_value(self, new_conf: NewConf, tmp_path: Path) -> None:
        options = "filesystem_store_datadir = {tmp}/also\nfilesystem_store_file_perm = x"
        stores = Stores(new_conf(beside_good("file", options)))
        assert "filesystem_store_file_perm" in stores.faults["bad"].hint
        delete_good(stores, tmp_path)


def test_reserved_names(new_conf: NewConf, tmp_path: Path) -> None:
    text = beside_good("file").replace("bad", "os_glance_staging_store")
    stores = Stores(new_conf(text))
    assert "reserves names" in stores.faults["os_glance_staging_store"].hint
    delete_good(stores, tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        ImportError("cannot import name 'x'"),
        ModuleNotFoundError("No module named 'else'", name="else.where"),
        SyntaxError("of another Python"),
        RuntimeError(""),
        NotImplementedError(),
        AttributeError("'NoneType' object has no attribute 'user_id'"),
        exceptions.BadStoreConfiguration(store_name="x", reason="of its own"),
        exceptions.BackendException(),
        ConnectionRefusedError(111, "no answer from http://u:topsecret@host/x"),
        ValueError("the key is topsecret, " + 1000 * "x"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("stage", ["load", "configure", "get_schemes"])
def test_any_exception_does_not_affect_others(
    new_conf: NewConf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    stage: str,
) -> None:
    """Nor does it show a secret, or more than a line."""

    def fail(*_: object, **__: object) -> None:
        raise error

    def make(namespace: str, kind: str, **arguments: Any) -> Any:
        manager: Any = DriverManager(namespace, kind, **arguments)
        if kind == "swift":
            if stage == "load":
                fail()
            monkeypatch.setattr(manager.driver, stage, fail)
        return manager

    monkeypatch.setattr(loading, "DriverManager", make)
    stores = Stores(new_conf(beside_good("swift", SWIFT)))
    hint = stores.faults["bad"].hint
    assert (
        "check [bad] or [backend_defaults] of" in hint
        or "the Python module else, not installed" in hint
    )
    assert "\n" not in hint
    assert len(hint) < 500
    if stage != "load":
        assert "topsecret" not in hint
    delete_good(stores, tmp_path)


@pytest.mark.parametrize(
    ("kind", "schemes"),
    [
        (kind, schemes)
        for kind, schemes in {
            "file": ("file", "filesystem"),
            "http": ("http", "https"),
            "s3": ("s3", "s3+http", "s3+https"),
            "swift": ("swift+https", "swift", "swift+http", "swift+config"),
            "rbd": ("rbd",),
            "cinder": ("cinder",),
            "vmware": ("vsphere",),
        }.items()
    ],
)
def test_the_schemes_known_beforehand_are_the_drivers(
    libraries: FakeLibraries, kind: str, schemes: Collection[str]
) -> None:
    manager: Any = DriverManager(faults.NAMESPACE, kind)
    driver = manager.driver
    owner = getattr(sys.modules[driver.__module__], "BaseStore", driver)
    assert set(owner.get_schemes(owner)) if kind != "s3" else set(driver.get_schemes())
    known = faults.schemes(kind)
    assert set(known) == set(schemes)
    assert set(known) == set(owner.get_schemes() if kind == "s3" else owner.get_schemes(owner))
    assert faults.is_read_only(kind) is (kind == "http")
