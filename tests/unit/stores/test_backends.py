# SPDX-License-Identifier: Apache-2.0
"""Which store a location is in, and what its real driver says to a delete."""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from boto3 import session as boto_session
from glance.common import crypt
from glance_store import capabilities, multi_backend
from glance_store import location as store_location
from glance_store.exceptions import NotFound, RemoteServiceUnavailable
from oslo_config import cfg

from evscrub.config.options import glance_opts
from evscrub.domain.decisions import LocationRow
from evscrub.domain.object_identity import StoreConfig
from evscrub.domain.proof import Presence
from evscrub.domain.verdict import (
    BAD_URL,
    EMPTY_DIRECTORY,
    GONE,
    LINKED,
    MISSING_BELOW,
    MISSING_DIRECTORY,
    STORE_NOT_ENABLED,
    STORE_NOT_LOADED,
    UNDECIPHERABLE,
    Outcome,
    StoreNotUsableError,
    Verdict,
)
from evscrub.stores import s3_clients
from evscrub.stores.backends import Stores, Target
from tests.servers import wait_until

KEY = "0123456789abcdef0123456789abcdef"
S3 = {
    "s3_store_host": "http://s3.test",
    "s3_store_access_key": "a",
    "s3_store_secret_key": "b",
    "s3_store_bucket": "glance",
    "s3_store_bucket_url_format": "path",
}
Loader = Callable[..., Stores]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """Return a function that loads stores.

    It takes kinds by name, none for a single store; whose directories are missing; options.
    """
    monkeypatch.setattr(store_location, "SCHEME_TO_CLS_BACKEND_MAP", {})
    monkeypatch.setattr(store_location, "SCHEME_TO_CLS_MAP", {})

    def load(
        kinds: Mapping[str, str] | None = None,
        key: str = "",
        missing: Collection[str] = (),
        **options: Mapping[str, str],
    ) -> Stores:
        lines = ["[DEFAULT]"]
        if kinds:
            lines.append("enabled_backends = " + ",".join(f"{n}:{k}" for n, k in kinds.items()))
        if key:
            lines.append(f"metadata_encryption_key = {key}")
        groups = {name: dict(values) for name, values in options.items()}
        if not kinds:
            single = groups.setdefault("glance_store", {})
            single.setdefault("stores", "file,http")
            single["filesystem_store_datadir"] = str(tmp_path / "file")
        for name, kind in (kinds or {}).items():
            if kind == "file":
                datadir = str(tmp_path / name)
                groups.setdefault(name, {}).setdefault("filesystem_store_datadir", datadir)
        for name in ["file", *(kinds or ())]:
            if name not in missing:
                (tmp_path / name).mkdir(exist_ok=True)
        for name, values in groups.items():
            lines += [f"[{name}]", *(f"{option} = {value}" for option, value in values.items())]
        path = tmp_path / "glance-api.conf"
        path.write_text("\n".join(lines) + "\n")
        conf = cfg.ConfigOpts()
        conf.register_opts(glance_opts)
        conf([], default_config_files=[str(path)], default_config_dirs=[])
        # glance_store looks there, whatever it was given to load the stores.
        monkeypatch.setattr(multi_backend, "CONF", conf)
        return Stores(conf)

    return load


def row(value: str, store: str | None = None) -> LocationRow:
    now = datetime(2026, 1, 1)
    return LocationRow(1, value, store, "pending_delete", True, now, now)


def refusal(stores: Stores, location: LocationRow) -> str:
    """The reason for which a location has no store."""
    with pytest.raises(StoreNotUsableError) as caught:
        stores.resolve(location)
    assert "secret" not in str(caught.value)
    return caught.value.reason


class TestResolve:
    def test_several_stores_by_name(self, load: Loader, tmp_path: Path) -> None:
        stores = load({"a": "file", "b": "file", "o": "s3"}, o=S3)
        assert stores.names == ["a", "b", "o"]
        assert stores.resolve(row(f"file://{tmp_path}/b/x", "b")).store == "b"
        assert stores.resolve(row("s3://u:secret@s3.test/glance/x", "o")).store == "o"

    def test_a_name_that_is_not_enabled(self, load: Loader) -> None:
        stores = load({"a": "file"})
        assert refusal(stores, row("file:///secret", "elsewhere")) == STORE_NOT_ENABLED
        assert refusal(stores, row("s3://u:secret@s3.test/glance/x", "o")) == STORE_NOT_ENABLED

    def test_a_store_that_did_not_load(self, load: Loader) -> None:
        stores = load({"a": "file", "o": "no-such-kind"})
        assert refusal(stores, row("s3://u:secret@s3.test/glance/x", "o")) == STORE_NOT_LOADED

    def test_a_name_with_the_url_of_another_kind(self, load: Loader) -> None:
        stores = load({"a": "file", "o": "s3"}, o=S3)
        assert refusal(stores, row("s3://u:secret@s3.test/glance/x", "a")) == STORE_NOT_LOADED

    def test_a_single_store(self, load: Loader, tmp_path: Path) -> None:
        stores = load()
        url = f"file://{tmp_path}/file/x"
        assert stores.resolve(row(url)) == Target("file", url, "file")
        assert refusal(stores, row("rbd://secret")) == STORE_NOT_ENABLED
        assert refusal(stores, row("file:///secret", "a")) == STORE_NOT_ENABLED

    @pytest.mark.parametrize("several", [True, False])
    def test_what_is_no_url(self, load: Loader, several: bool) -> None:
        stores = load({"a": "file"} if several else None)
        assert refusal(stores, row("file://u:pa[ss@host/x", "a" if several else None)) == BAD_URL

    def test_encrypted_locations(self, load: Loader, tmp_path: Path) -> None:
        stores = load({"a": "file"}, KEY)
        secret, plain = f"file://{tmp_path}/a/secret", f"file://{tmp_path}/a/plain"
        value = str(crypt.urlsafe_encrypt(KEY, secret, 64))
        assert stores.resolve(row(value, "a")).url == secret
        assert stores.resolve(row(plain, "a")).url == plain
        assert stores.index_key(value) == stores.index_key(secret) != stores.index_key(plain)
        other = str(crypt.urlsafe_encrypt(KEY[::-1], "file:///secret", 64))
        assert refusal(stores, row(other, "a")) == UNDECIPHERABLE

    def test_encrypted_locations_without_a_key(self, load: Loader) -> None:
        value = str(crypt.urlsafe_encrypt(KEY, "file:///secret", 64))
        assert refusal(load({"a": "file"}), row(value, "a")) == UNDECIPHERABLE

    def test_a_target_does_not_show_its_url(self) -> None:
        assert "secret" not in repr(Target("o", "s3://u:secret@host/b/x", "s3"))


class TestDeleteFile:
    @pytest.fixture(params=[True, False], ids=["several", "single"])
    def stores(self, request: pytest.FixtureRequest, load: Loader) -> Stores:
        return load({"file": "file", "other": "file"} if request.param else None)

    def test_what_is_there(self, stores: Stores, tmp_path: Path) -> None:
        path = tmp_path / "file" / "x"
        path.write_bytes(b"data")
        assert stores.delete(Target("file", f"file://{path}", "file")) == GONE
        assert not path.exists()

    @pytest.mark.costly
    @pytest.mark.parametrize("link", ["link", "directory/link"])
    def test_target_of_a_symbolic_link_stays(
        self, stores: Stores, tmp_path: Path, link: str
    ) -> None:
        """Whoever shows the image of the link reads the file that it leads to."""
        path = tmp_path / "file" / "x"
        path.write_bytes(b"data")
        folder = tmp_path / "other" if "other" in stores.names else tmp_path / "file"
        if "/" in link:
            (tmp_path / "elsewhere").mkdir()
            (tmp_path / "elsewhere" / "middle").symlink_to(path)
            (folder / "link").symlink_to(tmp_path / "elsewhere" / "middle")
        else:
            (folder / "link").symlink_to("../file/x")
        target = Target("file", f"file://{tmp_path}/other/../file/x", "file")
        (tmp_path / "other").mkdir(exist_ok=True)
        assert stores.delete(target) == LINKED
        assert (folder / "link").read_bytes() == b"data"
        assert stores.delete(Target("file", f"file://{folder}/link", "file")) == GONE
        wait_until(lambda: stores.delete(target) == GONE, 30, "the file's delete")
        assert not path.exists()

    def test_a_hard_link_keeps_the_data_when_another_one_goes(
        self, stores: Stores, tmp_path: Path
    ) -> None:
        path, other = tmp_path / "file" / "x", tmp_path / "file" / "y"
        path.write_bytes(b"data")
        other.hardlink_to(path)
        targets = [Target("file", f"file://{one}", "file") for one in (path, other)]
        assert not stores.are_same(*targets)
        assert stores.delete(targets[0]) == GONE
        assert other.read_bytes() == b"data"

    def test_what_is_not(self, stores: Stores, tmp_path: Path) -> None:
        (tmp_path / "file" / "y").touch()
        verdict = stores.delete(Target("file", f"file://{tmp_path}/file/x", "file"))
        assert verdict == Verdict(Outcome.GONE, "not_found", "NotFound")

    def test_in_a_directory_that_is_missing(self, stores: Stores, tmp_path: Path) -> None:
        target = Target("file", f"file://{tmp_path}/file/un%20mounted/x", "file")
        assert stores.delete(target) == EMPTY_DIRECTORY  # that of the store
        (tmp_path / "file").rmdir()
        assert stores.delete(target) == MISSING_DIRECTORY

    @pytest.mark.parametrize("below", ["gone", "empty", "un%20mounted", "empty/deep", "gone/.."])
    def test_in_a_directory_below_the_stores_that_is_missing(
        self, stores: Stores, tmp_path: Path, below: str
    ) -> None:
        """A location alone says that there was one."""
        for name in ("empty", "un mounted"):
            (tmp_path / "file" / name).mkdir()
        (tmp_path / "file" / "y").touch()
        verdict = stores.delete(Target("file", f"file://{tmp_path}/file/{below}/x", "file"))
        assert verdict == MISSING_BELOW
        assert "acknowledged_stores" in verdict.hint
        # The driver decodes nothing, and what is in such a directory proves it.
        (tmp_path / "file" / "empty" / "y").touch()
        verdict = stores.delete(Target("file", f"file://{tmp_path}/file/empty/x", "file"))
        assert verdict.is_missing

    @pytest.mark.parametrize(
        ("number", "outcome", "reason", "look"),
        [
            (errno.EIO, Outcome.TRANSIENT, "io_error", "the kernel log"),
            (errno.EBUSY, Outcome.IN_USE, "in_use", "Device or resource busy (EBUSY)"),
            (errno.ESTALE, Outcome.TRANSIENT, "io_error", "Stale file handle (ESTALE)"),
            (errno.EROFS, Outcome.TRANSIENT, "read_only_file_system", "mounted read-only"),
            (errno.EACCES, Outcome.TRANSIENT, "permission_denied", "owner and mode"),
            (errno.EPERM, Outcome.REFUSED, "permission_denied", "immutable files ('lsattr')"),
        ],
    )
    def test_errors_of_unlink(
        self,
        stores: Stores,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        outcome: Outcome,
        reason: str,
        look: str,
    ) -> None:
        path = tmp_path / "file" / "x"
        path.write_bytes(b"data")

        def unlink(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", unlink)
            verdict = stores.delete(Target("file", f"file://{path}", "file"))
        assert (verdict.outcome, verdict.reason) == (outcome, reason)
        assert verdict.detail == f"Forbidden {errno.errorcode[number]}"
        assert not verdict.tells_overload
        assert str(path.parent) in verdict.hint
        assert look in verdict.hint
        if reason == "permission_denied":
            user = f"user {pwd.getpwuid(os.geteuid()).pw_name} (uid {os.geteuid()})"
            wanted = f"permission denied: {user} may not delete in {path.parent}"
            assert verdict.why.startswith(wanted)
        assert path.exists()

    def test_a_name_that_is_too_long(self, stores: Stores, tmp_path: Path) -> None:
        verdict = stores.delete(Target("file", f"file://{tmp_path}/file/{'a' * 60_000}", "file"))
        assert verdict.reason == "not_a_file"
        assert len(verdict.hint) < 500 + len(str(tmp_path))

    def test_a_user_without_a_name(
        self, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "file" / "x"
        path.write_bytes(b"data")

        def unlink(*_: object) -> None:
            raise PermissionError(errno.EACCES, "")

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", unlink)
            patch.setattr(os, "geteuid", lambda: 4_242_424)
            verdict = stores.delete(Target("file", f"file://{path}", "file"))
        assert "user with uid 4242424 may not" in verdict.hint


def test_http_is_not_ours(load: Loader) -> None:
    stores = load({"web": "http", "a": "file"})
    verdict = stores.delete(Target("web", "http://127.0.0.1:9/x", "http"))
    assert verdict.outcome is Outcome.NOT_OURS
    assert stores.deletable == ["a"]


@pytest.mark.parametrize("url", ["s3://secret", "s3://a://secret/b/c"])
def test_a_bad_url_is_the_configurations(load: Loader, url: str) -> None:
    verdict = load({"o": "s3"}, o=S3).delete(Target("o", url, "s3"))
    assert (verdict.outcome, verdict.reason) == (Outcome.CONFIGURATION, BAD_URL)
    assert "secret" not in verdict.detail


def test_a_store_that_is_not_loaded_is_never_gone(load: Loader) -> None:
    """Not even where a location that was resolved is deleted after its store went."""
    stores = load({"a": "file"})
    verdict = stores.delete(Target("o", "s3://s3.test/glance/x", "s3"))
    assert verdict.outcome not in {Outcome.GONE, Outcome.NOT_OURS, Outcome.SHARED}


def test_a_missing_directory_is_found_and_not_made(load: Loader, tmp_path: Path) -> None:
    stores = load({"a": "file", "b": "file"}, missing=["a"])
    assert f"directory {tmp_path}/a does not exist" in stores.faults["a"].hint
    assert stores.usable == ["b"]
    assert not (tmp_path / "a").exists()


def test_several_directories_of_a_store(load: Loader, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    several = f"{tmp_path}/one:100"
    options = {"filesystem_store_datadirs": several, "filesystem_store_datadir": ""}
    assert load({"a": "file"}, a=options).faults == {}


def test_no_store_at_all_is_an_error(load: Loader) -> None:
    with pytest.raises(ValueError, match="no store is enabled"):
        load(glance_store={"stores": ""})


def test_lost_write_access_loads_the_driver_again(load: Loader, tmp_path: Path) -> None:
    """So that the next probe asks a driver that knows how its directory is then."""
    stores = load({"a": "file"})
    path = tmp_path / "a" / "x"
    path.write_bytes(b"data")
    driver = store_location.SCHEME_TO_CLS_BACKEND_MAP["file"]["a"]["store"]
    driver.unset_capabilities(capabilities.BitMasks.WRITE_ACCESS)
    target = Target("a", f"file://{path}", "file")
    verdict = stores.delete(target)
    assert (verdict.outcome, verdict.reason) == (Outcome.STORE_TROUBLE, "no_write_access")
    assert stores.delete(target) == GONE
    assert not path.exists()


def test_deletes_share_a_client_of_boto3(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """To make one takes five times as long as a request, and a session a hundred times."""
    load({"o": "s3"}, o=S3)
    driver: Any = __import__("glance_store._drivers.s3", fromlist=["Store"])
    monkeypatch.setattr(driver, "boto_session", boto_session)  # as before it was shared
    s3_clients.share(lambda: 0.0)  # to make the first one may take long

    def client(secret: str = "b", style: str = "path", **options: object) -> Any:
        session = driver.boto_session.Session(aws_access_key_id="a", aws_secret_access_key=secret)
        config = driver.boto_client.Config(s3={"addressing_style": style})
        options = {"endpoint_url": "http://s3.test", "verify": None, **options}
        return session.client(service_name="s3", region_name="r", config=config, **options)

    shared = client()
    assert client() is shared
    assert shared.meta.endpoint_url == "http://s3.test"
    assert shared.meta.config.s3["addressing_style"] == "path"
    others = [
        client(secret="c"),
        client(style="virtual"),
        client(endpoint_url="http://other.test"),
        client(verify="/etc/ssl/ca.pem"),
    ]
    assert len({id(each) for each in (shared, *others)}) == 5


def test_connections_do_not_idle_for_long(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies between may drop them without a word."""
    load({"o": "s3"}, o=S3)
    driver: Any = __import__("glance_store._drivers.s3", fromlist=["Store"])
    times = iter((0, 9.9, 10, 19.9, 20, 100))
    closed: list[int] = []

    class Session:
        made = 0

        def client(self, **_: object) -> Any:
            number = Session.made = Session.made + 1
            return SimpleNamespace(number=number, close=lambda: closed.append(number))

    monkeypatch.setattr(driver, "boto_session", ModuleType("boto_session"))
    driver.boto_session.Session = Session
    s3_clients.share(lambda: next(times))
    used = []
    for _ in range(6):
        options = {"config": driver.boto_client.Config(), "service_name": "s3"}
        used.append((driver.boto_session.Session().client(**options).number, list(closed)))
    # One that is no longer given out is kept for a second.
    assert used == [(1, []), (1, []), (2, []), (2, [1]), (3, [1]), (4, [1, 2, 3])]


class TestLookFor:
    """Whether a store has an image that must be there."""

    @pytest.mark.parametrize("several", [False, True])
    @pytest.mark.parametrize(
        ("data", "presence"),
        [
            (b"1234567", Presence.THERE),
            (b"123456", Presence.ABSENT),
            (b"12345678", Presence.ABSENT),
            (None, Presence.ABSENT),
            (b"", Presence.UNKNOWN),
        ],
    )
    def test_of_files(
        self,
        load: Loader,
        tmp_path: Path,
        data: bytes | None,
        presence: Presence,
        *,
        several: bool,
    ) -> None:
        stores = load({"fast": "file"} if several else None)
        name = "fast" if several else "file"
        path = tmp_path / name / "image"
        if data is not None:
            path.write_bytes(data)
        target = stores.resolve(row(f"file://{path}", name if several else None))
        assert stores.look_for(target, 7) is presence

    @pytest.mark.parametrize(
        ("scheme", "answer", "presence"),
        [
            ("rbd", 7, Presence.THERE),
            ("rbd", 8, Presence.ABSENT),
            ("swift+https", 7, Presence.THERE),
            ("cinder", 0, Presence.UNKNOWN),
            ("cinder", 7, Presence.THERE),
            ("cinder", 1024**3, Presence.THERE),
            ("cinder", 2 * 1024**3, Presence.ABSENT),
            ("cinder", 6, Presence.ABSENT),
            ("rbd", 1024**3, Presence.ABSENT),
            ("vsphere", None, Presence.UNKNOWN),
            ("rbd", NotFound(), Presence.ABSENT),
            ("rbd", RemoteServiceUnavailable(), Presence.UNKNOWN),
            ("s3", OSError("throttled"), Presence.UNKNOWN),
        ],
    )
    def test_size_as_the_driver_returns_it(
        self,
        load: Loader,
        monkeypatch: pytest.MonkeyPatch,
        scheme: str,
        answer: object,
        presence: Presence,
    ) -> None:
        def get_size(*_: object) -> object:
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr("glance_store.get_size_from_uri_and_backend", get_size)
        stores = load({"fast": "file"})
        assert stores.look_for(Target("fast", f"{scheme}://x", scheme), 7) is presence

    @pytest.mark.parametrize(
        ("host", "is_asked"),
        [("vc", True), ("VC:443", True), ("evil.example", False), ("vc@evil", False), ("", False)],
    )
    def test_vmware_is_asked_at_its_own_host(
        self, load: Loader, monkeypatch: pytest.MonkeyPatch, host: str, is_asked: bool
    ) -> None:
        """The driver sends the session's cookie to the host in the URL."""
        asked = []

        def get_size(url: str, _store: str) -> int:
            asked.append(url)
            return 7

        monkeypatch.setattr("glance_store.get_size_from_uri_and_backend", get_size)
        stores = load({"fast": "file"})
        stores.objects.configs = {"fast": StoreConfig("fast", "vmware", backend="vc")}
        url = f"vsphere://{host}/folder/openstack_glance/x?dcPath=dc&dsName=ds"
        presence = Presence.THERE if is_asked else Presence.UNKNOWN
        assert stores.look_for(Target("fast", url, "vsphere"), 7) is presence
        assert asked == [url] * is_asked

    @pytest.mark.parametrize("several", [False, True])
    @pytest.mark.parametrize(
        ("error", "presence"),
        [
            (NotFound(), Presence.ABSENT),
            (RemoteServiceUnavailable(), Presence.UNKNOWN),
            (None, Presence.UNKNOWN),
        ],
    )
    def test_swift_size_0_is_checked_by_a_read(
        self,
        load: Loader,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception | None,
        presence: Presence,
        *,
        several: bool,
    ) -> None:
        def get(*_: object) -> None:
            if error is not None:
                raise error

        of_kind = (
            ("size_from_uri_and_backend", "") if several else ("size_from_backend", "_from_backend")
        )
        monkeypatch.setattr(f"glance_store.get_{of_kind[0]}", lambda *_: 0)
        monkeypatch.setattr(f"glance_store.get{of_kind[1]}", get)
        stores = load({"fast": "file"} if several else None)
        assert stores.look_for(Target("fast", "swift+https://x", "swift+https"), 7) is presence
