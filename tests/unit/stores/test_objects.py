# SPDX-License-Identifier: Apache-2.0
"""Which objects are a store's, and which are the same, on drivers as they load."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from evscrub.config import options
from evscrub.domain.object_identity import Identity, Relation, StoreConfig, relate
from evscrub.domain.verdict import BAD_URL, FOREIGN_OBJECT, STORE_AMBIGUOUS, StoreNotUsableError
from evscrub.stores import configs
from evscrub.stores.backends import Stores
from evscrub.stores.directories import Bounded, Directories, Directory
from evscrub.stores.objects import StoreObjects
from tests.servers import wait_until
from tests.unit import drivers
from tests.unit.stores import test_backends
from tests.unit.stores.test_backends import S3, Loader, refusal, row

load = test_backends.load

SWIFT = {
    "swift_store_auth_address": "http://keystone.test:5000/v3",
    "swift_store_user": "service:glance",
    "swift_store_key": "key",
    "swift_store_container": "glance",
    "swift_store_create_container_on_put": "true",
}
IMAGE = "3a1f8a3c-54bd-4a8b-9b4f-0a8d6e9f3c11"


def relation(
    stores: Stores, one: tuple[str | None, str], other: tuple[str | None, str]
) -> Relation:
    first, second = (stores.identify(row(url, store)) for store, url in (one, other))
    assert stores.relate(first, second) is stores.relate(second, first)
    return stores.relate(first, second)


class TestOwn:
    """What Glance writes, as configured, is the store's; what lies elsewhere is foreign."""

    @pytest.mark.parametrize("several", [True, False])
    @pytest.mark.parametrize(
        ("path", "own"),
        [
            ("{file}/x", True),
            ("{file}//x", True),
            ("{file}/deep/x", True),
            ("{file}/../file/x", True),
            ("{link}/x", True),
            ("{file}2/x", False),
            ("{file}/../file2/x", False),
            ("{file}/out/x", False),
            ("{file}/../x", False),
            ("/etc/passwd", False),
        ],
    )
    def test_files(self, load: Loader, tmp_path: Path, path: str, own: bool, several: bool) -> None:
        stores = load({"file": "file"} if several else None)
        (tmp_path / "file2").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "file")
        (tmp_path / "file" / "out").symlink_to("/etc")
        url = "file://" + path.format(file=tmp_path / "file", link=tmp_path / "link")
        location = row(url, "file" if several else None)
        if own:
            assert stores.resolve(location).store == "file"
        else:
            assert refusal(stores, location) == FOREIGN_OBJECT
            stores.objects.change(["file:/"], [])
            assert stores.resolve(location).store == "file"

    def test_a_file_of_a_relative_path(self, load: Loader) -> None:
        assert refusal(load(), row("file://images/secret")) == FOREIGN_OBJECT

    def test_several_directories(self, load: Loader, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        several = f"{tmp_path}/one : 100\nfilesystem_store_datadirs = {tmp_path}/two"
        values = {"filesystem_store_datadirs": several, "filesystem_store_datadir": ""}
        stores = load({"a": "file"}, a=values)
        for name in ("one", "two"):
            assert stores.resolve(row(f"file://{tmp_path}/{name}/x", "a")).store == "a"
        assert refusal(stores, row(f"file://{tmp_path}/x", "a")) == FOREIGN_OBJECT

    @pytest.mark.parametrize("several", [True, False])
    @pytest.mark.parametrize(
        ("url", "own"),
        [
            ("s3://s3.test/glance/x", True),
            ("s3://u:secret@s3.test/glance/x/", True),
            ("s3+https://elsewhere/glance/x?y", True),
            ("s3://s3.test/billing/ledger", False),
            ("s3://s3.test/glance/billing/ledger", False),
            ("s3://s3.test/glance2/x", False),
            ("s3://s3.test/Glance/x", False),
        ],
    )
    def test_s3(self, load: Loader, url: str, own: bool, several: bool) -> None:
        if several:
            stores = load({"s3": "s3"}, s3=S3)
        else:
            stores = load(glance_store={"stores": "file,s3", **S3})
        location = row(url, "s3" if several else None)
        if own:
            assert stores.resolve(location).store == "s3"
        else:
            assert refusal(stores, location) == FOREIGN_OBJECT
            stores.objects.change(["s3:billing", "s3:glance*", "s3:Gl?nce"], [])
            assert stores.resolve(location).store == "s3"

    @pytest.mark.parametrize(
        ("url", "own"),
        [
            (f"swift+config://ref1/glance/{IMAGE}", True),
            (f"swift+http://service:glance:key@keystone.test:5000/v3/glance/{IMAGE}", True),
            (f"swift+http://service:old:secret@keystone.test:5000/v2.0/glance/{IMAGE}", True),
            (f"swift+config://ref1/glance_3a1/{IMAGE}", True),
            (f"swift+config://ref1/glance_3a1f8a3c-5/{IMAGE.upper()}", True),
            (f"swift+config://ref1/glance_{IMAGE}/{IMAGE}", True),
            (f"swift+config://ref1/glance_4a1/{IMAGE}", False),
            (f"swift+config://ref1/glance_/{IMAGE}", False),
            (f"swift+config://ref1/glance3a1/{IMAGE}", False),
            ("swift+config://ref1/billing/ledger", False),
            (f"swift+http://other:glance:key@keystone.test:5000/v3/glance/{IMAGE}", False),
            (f"swift+http://service:glance:key@elsewhere:5000/v3/glance/{IMAGE}", False),
        ],
    )
    def test_swift(self, load: Loader, url: str, own: bool) -> None:
        stores = load({"o": "swift"}, o=SWIFT)
        if own:
            assert stores.resolve(row(url, "o")).store == "o"
        else:
            assert refusal(stores, row(url, "o")) == FOREIGN_OBJECT
            stores.objects.change(
                [
                    "o:glance_*",
                    "o:billing",
                    "o:glance3a1",
                    "o:other@keystone.test:5000/glance",
                    "o:*@elsewhere:5000/*",
                ],
                [],
            )
            assert stores.resolve(row(url, "o")).store == "o"

    @pytest.mark.parametrize(
        ("kind", "url", "own"),
        [
            ("rbd", "rbd://x", True),
            ("rbd", "rbd://any/images/x/snap", True),
            ("rbd", "rbd://any/volumes/x/snap", False),
            ("rbd", "rbd://any/images%2Fx/x/snap", False),
            ("vmware", "vsphere://v/folder/openstack_glance/x?dcPath=dc&dsName=ds", True),
            ("vmware", "vsphere://v/folder/OpenStack_Glance/x?dcPath=dc&dsName=ds", True),
            ("vmware", "vsphere://v/folder/openstack_glance/../x?dcPath=dc&dsName=ds", False),
            ("vmware", "vsphere://v/folder/openstack_glance2/x?dcPath=dc&dsName=ds", False),
            ("vmware", "vsphere://v/folder/vm/vm.vmdk?dcPath=dc&dsName=ds", False),
            ("vmware", "vsphere://v/folder/openstack_glance/x?dcPath=dc&dsName=other", False),
            ("vmware", "vsphere://v/folder/openstack_glance/x?dsName=ds", False),
            ("cinder", "cinder://any/5f0f8a3c-54bd-4a8b-9b4f-0a8d6e9f3c11", True),
            ("http", "http://anywhere/x", True),
        ],
    )
    def test_kinds_whose_clients_are_not_here(self, kind: str, url: str, own: bool) -> None:
        objects = StoreObjects({kind: drivers.config(kind)})
        if own:
            objects.check(kind, url)
            return
        with pytest.raises(StoreNotUsableError) as caught:
            objects.check(kind, url)
        assert caught.value.reason == FOREIGN_OBJECT

    def test_place_is_named_for_a_location_without_a_store(self) -> None:
        configs = {name: drivers.config("s3") for name in ("a", "b")}
        with pytest.raises(StoreNotUsableError) as caught:
            StoreObjects(configs).choose("s3://u:secret@s3.test/billing/x", ["a", "b"])
        assert "its data is in bucket billing, outside of the stores a, b: " in caught.value.hint

    def test_a_driver_that_is_not_known(self) -> None:
        objects = StoreObjects({"n": StoreConfig("n", "new", "store n")})
        with pytest.raises(StoreNotUsableError) as caught:
            objects.check("n", "new://a/b")
        assert caught.value.reason == FOREIGN_OBJECT
        objects.change(["n:*"], [])
        objects.check("n", "new://a/b")

    @pytest.mark.parametrize(
        "url",
        [
            "s3://u:sec/ret@s3.test/x",
            "s3://s3.test/u:secret@/x",
            "s3://s3.test/\x1b[31msecret/x",
        ],
    )
    def test_place_that_may_contain_credentials_is_not_shown(self, load: Loader, url: str) -> None:
        assert refusal(load({"o": "s3"}, o=S3), row(url, "o")) == FOREIGN_OBJECT

    def test_place_is_named(self, load: Loader) -> None:
        with pytest.raises(
            StoreNotUsableError, match=r"in bucket billing, outside of store o \(gl"
        ):
            load({"o": "s3"}, o=S3).resolve(row("s3://u:secret@s3.test/billing/x", "o"))


def test_spelling_does_not_change_the_endpoint(load: Loader) -> None:
    """Else one owner's images would tell that the store works in many places, and its own fails."""
    stores = load({"o": "s3"}, o=S3)
    urls = ["s3://s3.test/glance/x", *(f"s3+https://u:secret@odd{n}/glance/{n}" for n in range(9))]
    [part] = {stores.resolve(row(url, "o")).endpoint for url in urls}
    assert "glance" in part
    assert "secret" not in part


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize(
    ("url", "store"),
    [
        ("file:///{long}/x", None),
        ("file:///images/x", "{long}"),
        ("{long}:///images/x", None),
        ("{long}:///images/x", "file"),
        ("s3://host/{long}/x", None),
    ],
)
def test_shown_place_is_short(load: Loader, url: str, store: str | None, several: bool) -> None:
    """An agent keeps it for each image that it cannot scrub."""
    stores = load({"file": "file", "s3": "s3"} if several else None, s3=S3)
    long = "a" * 60_000
    with pytest.raises(StoreNotUsableError) as caught:
        stores.resolve(row(url.format(long=long), store and store.format(long=long)))
    assert len(caught.value.hint) < 500


def test_shown_datastore_is_short() -> None:
    objects = StoreObjects({"vmware": drivers.config("vmware")})
    with pytest.raises(StoreNotUsableError) as caught:
        objects.check("vmware", f"vsphere://v/folder/{'a/' * 20_000}x?dcPath=dc&dsName=ds")
    assert len(caught.value.hint) < 500


class TestWithoutName:
    def test_one_s3_store_takes_a_url_with_credentials(self, load: Loader) -> None:
        stores = load({"a": "file", "o": "s3"}, o=S3)
        for url in ("s3://u:secret@s3.test/glance/x", "s3+https://elsewhere/glance/x"):
            assert stores.resolve(row(url)).store == "o"
        with pytest.raises(StoreNotUsableError, match="in bucket billing, outside of store o"):
            stores.resolve(row("s3://u:secret@s3.test/billing/x"))

    def test_several_s3_stores_differ_by_bucket_or_host(self, load: Loader) -> None:
        other = S3 | {"s3_store_bucket": "other"}
        far = S3 | {"s3_store_host": "https://far.test"}
        stores = load({"o": "s3", "p": "s3", "q": "s3"}, o=S3, p=other, q=far)
        assert stores.resolve(row("s3://u:secret@s3.test/other/x")).store == "p"
        assert stores.resolve(row("s3://u:secret@S3.test:80/glance/x")).store == "o"
        assert stores.resolve(row("s3+https://far.test/glance/x")).store == "q"
        assert refusal(stores, row("s3://elsewhere/glance/x")) == STORE_AMBIGUOUS
        assert refusal(stores, row("s3://s3.test/third/x")) == FOREIGN_OBJECT

    def test_either_of_two_identical_stores_is_chosen(self, load: Loader) -> None:
        stores = load({"o": "s3", "p": "s3"}, o=S3, p=S3)
        assert stores.resolve(row("s3://s3.test/glance/x")).store == "o"

    def test_paths_end_at_their_borders(self, load: Loader, tmp_path: Path) -> None:
        stores = load({"images": "file", "images2": "file"})
        assert stores.resolve(row(f"file://{tmp_path}/images/x")).store == "images"
        assert stores.resolve(row(f"file://{tmp_path}/images2/x")).store == "images2"
        assert refusal(stores, row(f"file://{tmp_path}/images3/x")) == FOREIGN_OBJECT
        assert refusal(stores, row("file:///elsewhere/secret")) == FOREIGN_OBJECT

    def test_the_innermost_of_directories_in_one_another(
        self, load: Loader, tmp_path: Path
    ) -> None:
        (tmp_path / "outer/inner").mkdir(parents=True)
        inner = {"filesystem_store_datadir": f"{tmp_path}/outer/inner"}
        stores = load({"outer": "file", "x": "file", "y": "file"}, x=inner)
        assert stores.resolve(row(f"file://{tmp_path}/outer/inner/x")).store == "x"
        assert stores.resolve(row(f"file://{tmp_path}/outer/x")).store == "outer"

    def test_rbd_by_pool(self) -> None:
        configs = {
            name: StoreConfig(name, "rbd", "file c", pool, (pool,))
            for name, pool in (("a", "images"), ("b", "fast"))
        }
        objects = StoreObjects(configs)
        assert objects.choose("rbd://0a/fast/x/snap", ["a", "b"]) == "b"
        assert objects.choose("rbd://0a/images/x/snap", ["a", "b"]) == "a"
        with pytest.raises(StoreNotUsableError) as caught:
            objects.choose("rbd://x", ["a", "b"])
        assert caught.value.reason == STORE_AMBIGUOUS

    def test_rbd_by_cluster(self) -> None:
        configs = {
            name: StoreConfig(name, "rbd", f"fsid {name}", "images", ("images",), authority=name)
            for name in ("0a", "0b")
        }
        objects = StoreObjects(configs)
        assert objects.choose("rbd://0b/images/x/snap", ["0a", "0b"]) == "0b"

    def test_what_names_no_object(self, load: Loader) -> None:
        assert refusal(load({"o": "s3"}, o=S3), row("s3://s3.test/secret")) == BAD_URL


class TestSame:
    def test_whatever_the_spelling(self, load: Loader) -> None:
        stores = load({"o": "s3", "p": "s3", "a": "file"}, o=S3, p=S3)
        one = ("o", "s3://u:secret@s3.test/glance/x")
        for other in (
            ("o", "s3://s3.test/glance/x"),
            ("o", "s3+https://elsewhere/glance/x/?a#b"),
            ("p", "s3://s3.test/glance/x"),
            (None, "s3://s3.test/glance/x"),
        ):
            assert relation(stores, one, other) is Relation.SAME
        assert relation(stores, one, ("o", "s3://s3.test/glance/y")) is Relation.OTHER
        assert relation(stores, one, ("a", "file:///glance/x")) is Relation.OTHER

    def test_a_store_that_is_not_enabled_may_be_any(self, load: Loader) -> None:
        stores = load({"o": "s3"}, o=S3)
        one = ("o", "s3://s3.test/glance/x")
        for store in ("old", "a"):
            assert relation(stores, one, (store, "s3://h/glance/x")) is Relation.UNKNOWN
            assert relation(stores, one, (store, "s3://h/glance/y")) is Relation.OTHER
            assert relation(stores, one, (store, "s3://h/other/x")) is Relation.OTHER

    def test_stores_on_servers_of_different_names_may_be_the_same(self, load: Loader) -> None:
        far = S3 | {"s3_store_host": "https://far.test"}
        stores = load({"o": "s3", "q": "s3"}, o=S3, q=far)
        rows = ("o", "s3://s3.test/glance/x"), ("q", "s3://s3.test/glance/x")
        assert relation(stores, *rows) is Relation.UNKNOWN
        stores.objects.change([], ["o"])
        assert relation(stores, *rows) is Relation.UNKNOWN
        stores.objects.change([], ["o", "q"])
        assert relation(stores, *rows) is Relation.OTHER

    def test_swift_by_account_and_region(self, load: Loader) -> None:
        far = SWIFT | {"swift_store_region": "far"}
        stores = load({"o": "swift", "p": "swift", "q": "swift"}, o=SWIFT, p=SWIFT, q=far)
        one = ("o", f"swift+config://ref1/glance/{IMAGE}")
        named = f"swift+http://service:other:secret@keystone.test:5000/v2.0/glance/{IMAGE}"
        for store in ("o", "p"):
            assert relation(stores, one, (store, named)) is Relation.SAME
        assert relation(stores, one, ("q", named)) is Relation.UNKNOWN
        missing = f"swift+config://missing/glance/{IMAGE}"
        assert relation(stores, one, ("o", missing)) is Relation.UNKNOWN

    def test_a_fixed_storage_url_of_swift_is_the_account(self, load: Loader) -> None:
        fixed = SWIFT | {"swift_store_endpoint": "http://swift.test/v1/AUTH_glance"}
        stores = load({"o": "swift"}, o=fixed)
        one = ("o", f"swift+config://ref1/glance/{IMAGE}")
        named = f"swift+http://other:other:secret@elsewhere/v3/glance/{IMAGE}"
        assert relation(stores, one, ("o", named)) is Relation.SAME

    def test_files_through_links_and_in_one_another(self, load: Loader, tmp_path: Path) -> None:
        (tmp_path / "outer/inner").mkdir(parents=True)
        inner = {"filesystem_store_datadir": f"{tmp_path}/outer/inner"}
        stores = load({"outer": "file", "inner": "file"}, inner=inner)
        (tmp_path / "link").symlink_to(tmp_path / "outer")
        one = ("inner", f"file://{tmp_path}/outer/inner/x")
        for path in ("outer/inner/x", "link/inner/x", "outer//inner/./x", "link/../outer/inner/x"):
            for store in ("outer", "inner", "gone", None):
                other = (store, f"filesystem://{tmp_path}/{path}")
                assert relation(stores, one, other) is Relation.SAME
        assert relation(stores, one, ("outer", f"file://{tmp_path}/outer/x")) is Relation.OTHER
        assert relation(stores, one, ("outer", f"file://{tmp_path}/nowhere/x")) is Relation.OTHER
        assert relation(stores, one, ("outer", "file://relative/x")) is Relation.UNKNOWN

    def test_volumes_and_pools(self) -> None:
        def of(store: str, backend: str | None, place: str | None) -> Identity:
            return Identity("rbd", store, backend, place, "x")

        def same(one: Identity, other: Identity) -> Relation:
            return relate(one, other, frozenset(), lambda *_: None)

        one = of("a", "file c", "images")
        assert same(one, of("b", "file c", "images")) is Relation.SAME
        assert same(one, of("b", "file d", "images")) is Relation.UNKNOWN
        assert same(one, of("b", "file d", "fast")) is Relation.OTHER
        assert same(one, of("b", None, None)) is Relation.UNKNOWN

    def test_directories_that_cannot_be_compared(self) -> None:
        """Two stores that are said to have nothing in common need no comparison."""
        one, other = (Identity("file", store, "", f"/{store}", "x") for store in ("a", "b"))
        for same, wanted in ((True, Relation.SAME), (False, Relation.OTHER)):
            assert relate(one, other, frozenset(), lambda *_, same=same: same) is wanted
        assert relate(one, other, frozenset(), lambda *_: None) is Relation.UNKNOWN
        assert relate(one, other, frozenset("a"), lambda *_: None) is Relation.UNKNOWN
        assert relate(one, other, frozenset("ab"), lambda *_: None) is Relation.OTHER

    def test_a_store_is_not_separate_from_itself(self, load: Loader) -> None:
        """A reference that is not configured may be any account of the store."""
        stores = load({"o": "swift", "p": "swift"}, o=SWIFT, p=SWIFT)
        stores.objects.change([], ["o", "p"])
        one = ("o", f"swift+config://ref1/glance/{IMAGE}")
        missing = f"swift+config://missing/glance/{IMAGE}"
        assert relation(stores, one, ("o", missing)) is Relation.UNKNOWN
        assert relation(stores, one, ("p", missing)) is Relation.OTHER

    def test_a_url_of_another_kind_than_its_store_is_completed_by_no_configuration(self) -> None:
        """The store was of that kind when the image was stored: where it was is not known."""
        objects = StoreObjects({"o": StoreConfig("o", "rbd", "file c", "images", ("images",))})
        one = objects.identify("o", "s3://s3.test/glance/x")
        assert one == Identity("s3", None, None, "glance", "x")
        other = Identity("s3", "p", "s3.test", "glance", "x")
        assert objects.relate(one, other) is Relation.UNKNOWN
        assert objects.relate(other, one) is Relation.UNKNOWN


class TestDirectories:
    def test_hanging_file_system_is_not_waited_for(self) -> None:
        release = threading.Event()
        asked: list[str] = []
        now = 0.0

        def ask(path: str) -> str:
            nonlocal now
            asked.append(path)
            if path == "hangs":
                now += 60
                release.wait(60)
            return path

        look = Bounded(ask, 60, lambda: now)
        assert look("a") == "a"
        threading.Thread(target=look, args=("hangs",)).start()
        wait_until(lambda: now == 60, 30, "a hanging call")
        assert [look("hangs"), look("hangs"), look("a")] == [None, None, "a"]
        assert asked == ["a", "hangs", "a"]
        release.set()
        wait_until(lambda: look("hangs") == "hangs", 30, "an answer")

    def test_wait_is_measured_by_the_clock(self) -> None:
        release = threading.Event()
        times = iter([1e12, 1e12 + 60])
        look = Bounded(lambda _path: release.wait(60), 60, lambda: next(times))
        assert look("hangs") is None
        release.set()

    def test_unreadable_directory_is_neither_same_nor_contained(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directories = Directories(60.0)
        assert directories.same("/a\0", "/b") is False
        monkeypatch.setattr(directories, "_look", lambda _path: None)
        assert directories.same("/images", "/images") is True
        assert directories.same("/images", "/other") is None
        assert directories.holds("/images", "/images") is True
        assert directories.holds("/images", "/images/deep") is False

    def test_directory_is_looked_up_again_after_a_while(self, tmp_path: Path) -> None:
        now = 0.0
        directories = Directories(60.0, lambda: now)
        (tmp_path / "a").mkdir()
        one, other = str(tmp_path / "a"), str(tmp_path / "b")
        assert directories.same(one, other) is False
        (tmp_path / "b").symlink_to("a")
        assert directories.same(one, other) is False
        now = 31.0
        assert directories.same(one, other) is True

    @pytest.mark.parametrize(("device", "same"), [(0x30, None), (0x801, False)])
    def test_a_network_directory_may_be_mounted_twice(
        self, monkeypatch: pytest.MonkeyPatch, device: int, same: bool | None
    ) -> None:
        directories = Directories(60.0)
        keys = {"/a": (device, 2), "/b": (device + 1, 2)}
        monkeypatch.setattr(directories, "_look", lambda path: Directory(path, keys[path]))
        assert directories.same("/a", "/b") is same


@pytest.mark.parametrize(("place", "is_allowed"), [("images", False), ("/images", True)])
def test_a_relative_directory_is_no_place_of_a_file_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, is_allowed: bool
) -> None:
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    absolute = place.replace("/images", f"{tmp_path}/images")
    config = StoreConfig("f", "file", places=("/elsewhere",))
    objects = StoreObjects({"f": config}, [f"f:{absolute}"])
    url = f"file://{tmp_path}/images/x"
    if is_allowed:
        objects.check("f", url)
        assert objects.directory_of("f", f"{tmp_path}/images") is not None
    else:
        with pytest.raises(StoreNotUsableError):
            objects.check("f", url)
        assert objects.directory_of("f", f"{tmp_path}/images") is None


@pytest.mark.parametrize(
    "entry",
    [
        "objects",
        ":bucket",
        "objects:",
        "objects: ",
        "f:srv/images",
        "f:.",
        "f:..",
        "f:./x",
        "f: ../x",
        # oslo.config joins an entry that is wrong with the next one.
        "f:srv/images,o:bucket",
        "f:srv/images,s:t@host/c",
        "f:..,g:/a",
        "objects,g:/a",
    ],
)
def test_a_place_is_named_with_its_store(entry: str) -> None:
    conf = cfg.ConfigOpts()
    conf.register_opts(options.scrubber_opts, group="scrubber")
    entries = "o:a, p : /b c,o:dc:ds/x,s:t@host/c-*,s:*/c, 'f:/with, comma'"
    conf.set_override("allowed_places", entries, group="scrubber")
    found: Any = conf.scrubber.allowed_places
    assert found == ["o:a", "p:/b c", "o:dc:ds/x", "s:t@host/c-*", "s:*/c", "f:/with, comma"]
    with pytest.raises(ValueError, match=r"must be store:place|must begin with /"):
        conf.set_override("allowed_places", entry, group="scrubber")


@pytest.mark.parametrize(
    ("single", "several", "wanted"),
    [
        ("/a", None, ("/a",)),
        (None, ["/b:100", " /c : 2", "/d"], ("/b", "/c", "/d")),
        ("", ["/with:colon:7", ""], ("/with:colon",)),
        (None, None, ()),
    ],
)
def test_directories_are_read_as_the_file_driver_reads_them(
    single: str | None, several: list[str] | None, wanted: tuple[str, ...]
) -> None:
    options = {"filesystem_store_datadir": single, "filesystem_store_datadirs": several}
    assert configs.datadirs(options.get) == wanted
