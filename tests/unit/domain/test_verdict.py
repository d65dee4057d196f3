# SPDX-License-Identifier: Apache-2.0
"""What a store's answer means, by the exceptions that drivers and clients really raise."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import glance_store
import pytest
import requests
import swiftclient
import urllib3.exceptions
from botocore import exceptions as botocore_exceptions
from glance_store import exceptions as store_exceptions
from glance_store import location
from glance_store._drivers import filesystem
from hypothesis import given
from hypothesis import strategies as st
from keystoneauth1 import exceptions as keystone_exceptions
from oslo_config import cfg

from evscrub.domain import verdict
from evscrub.domain.verdict import FINISHED, Outcome, StoreNotUsableError, Verdict, judge

URL = "swift+https://account:user:secret@keystone/v3/container/object"


def client_error(status: int, code: str) -> botocore_exceptions.ClientError:
    """An S3 client's error, as botocore makes it of an answer."""
    answer = {
        "Error": {"Code": code, "Message": URL},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return botocore_exceptions.ClientError(answer, "DeleteObject")


def swift_error(status: int) -> swiftclient.ClientException:
    return swiftclient.ClientException("Object DELETE failed", http_host=URL, http_status=status)


def foreign(module: str, name: str, **attributes: object) -> Exception:
    """An exception of a library that may not be installed."""
    kind = type(name, (Exception,), {"__module__": module, **attributes})
    error = kind(URL)
    assert isinstance(error, Exception)
    return error


def http_error(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(URL, response=response)


TRANSIENT = Outcome.TRANSIENT
REFUSED = Outcome.REFUSED

CASES: list[tuple[str, Exception, Outcome, str]] = [
    # What drivers say themselves.
    ("file", store_exceptions.NotFound(image=URL), Outcome.GONE, "not_found"),
    ("rbd", store_exceptions.InUseByStore(), Outcome.IN_USE, "in_use"),
    ("rbd", store_exceptions.HasSnapshot(), Outcome.IN_USE, "has_snapshot"),
    ("file", store_exceptions.Forbidden(URL), TRANSIENT, "forbidden"),
    ("cinder", store_exceptions.TimeoutError(timeout=5), TRANSIENT, "timeout"),
    ("http", store_exceptions.RemoteServiceUnavailable(), TRANSIENT, "unavailable"),
    ("rbd", store_exceptions.BackendException(URL), TRANSIENT, "backend"),
    ("rbd", store_exceptions.UnsupportedBackend(URL), TRANSIENT, "backend"),
    (
        "swift",
        store_exceptions.BadStoreConfiguration(store_name="swift", reason=URL),
        TRANSIENT,
        "bad_store_configuration",
    ),
    ("x", store_exceptions.UnknownScheme(scheme="x"), Outcome.CONFIGURATION, "store_not_enabled"),
    ("rbd", store_exceptions.BadStoreUri(uri=URL), Outcome.CONFIGURATION, "bad_url"),
    ("http", store_exceptions.StoreDeleteNotSupported(), Outcome.NOT_OURS, "read_only_store"),
    ("https", store_exceptions.StoreDeleteNotSupported(), Outcome.NOT_OURS, "read_only_store"),
    *(
        (
            scheme,
            store_exceptions.StoreDeleteNotSupported(),
            Outcome.STORE_TROUBLE,
            "no_write_access",
        )
        for scheme in ("file", "filesystem", "rbd", "s3", "swift+https", "cinder", "vsphere", "")
    ),
    ("file", store_exceptions.StorageFull(), Outcome.UNKNOWN, "unexpected"),
    # S3.
    ("s3", client_error(503, "SlowDown"), TRANSIENT, "throttled"),
    ("s3", client_error(503, "ServiceUnavailable"), TRANSIENT, "throttled"),
    ("s3", client_error(429, "TooManyRequests"), TRANSIENT, "throttled"),
    ("s3", client_error(400, "RequestLimitExceeded"), TRANSIENT, "throttled"),
    ("s3", client_error(400, "ThrottlingException"), TRANSIENT, "throttled"),
    ("s3", client_error(403, "AccessDenied"), REFUSED, "refused"),
    ("s3", client_error(401, "InvalidToken"), TRANSIENT, "permission_denied"),
    ("s3", client_error(404, "NoSuchBucket"), TRANSIENT, "client"),
    ("s3", client_error(500, "InternalError"), TRANSIENT, "client"),
    ("s3", botocore_exceptions.NoCredentialsError(), TRANSIENT, "client"),
    (
        "s3",
        botocore_exceptions.EndpointConnectionError(endpoint_url=URL),
        TRANSIENT,
        "client",
    ),
    # S3, of one object: an object lock, a policy, a retention; or of the credentials.
    ("s3", client_error(405, "MethodNotAllowed"), REFUSED, "refused"),
    ("s3", client_error(409, "OperationAborted"), REFUSED, "refused"),
    ("s3", client_error(403, "InvalidObjectState"), REFUSED, "refused"),
    *(
        ("s3", client_error(403, code), TRANSIENT, "permission_denied")
        for code in (
            "AccountProblem",
            "AllAccessDisabled",
            "ExpiredToken",
            "InvalidAccessKeyId",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
        )
    ),
    # Swift.
    ("swift", swift_error(405), REFUSED, "refused"),
    (
        "swift",
        swiftclient.ClientException("Auth GET failed", http_host=URL, http_status=403),
        TRANSIENT,
        "permission_denied",
    ),
    ("swift", keystone_exceptions.Forbidden(URL), TRANSIENT, "permission_denied"),
    ("swift", swift_error(503), TRANSIENT, "throttled"),
    ("swift", swift_error(429), TRANSIENT, "throttled"),
    ("swift", swift_error(401), TRANSIENT, "permission_denied"),
    ("swift", swift_error(403), REFUSED, "refused"),
    ("swift", swift_error(404), TRANSIENT, "client"),
    ("swift", swift_error(409), REFUSED, "refused"),
    ("swift", swift_error(500), TRANSIENT, "client"),
    ("swift", swiftclient.ClientException(URL), TRANSIENT, "client"),
    ("swift", keystone_exceptions.ConnectFailure(URL), TRANSIENT, "client"),
    ("swift", keystone_exceptions.Unauthorized(URL), TRANSIENT, "permission_denied"),
    ("swift", keystone_exceptions.ServiceUnavailable(URL), TRANSIENT, "throttled"),
    ("swift", keystone_exceptions.ConnectTimeout(URL), TRANSIENT, "timeout"),
    # Other clients, which need not be installed.
    (
        "cinder",
        foreign("cinderclient.exceptions", "ClientException", code=500),
        TRANSIENT,
        "client",
    ),
    ("cinder", foreign("os_brick.exception", "BrickException"), TRANSIENT, "client"),
    ("rbd", foreign("rbd", "ImageBusy"), Outcome.IN_USE, "in_use"),
    ("rbd", foreign("rbd", "ImageHasSnapshots"), Outcome.IN_USE, "has_snapshot"),
    ("rbd", foreign("rbd", "ImageMemberOfGroup"), Outcome.IN_USE, "in_use"),
    ("rbd", foreign("rbd", "OperationNotSupported"), REFUSED, "not_supported"),
    ("rbd", foreign("rbd", "ReadOnlyImage"), REFUSED, "immutable"),
    ("rbd", foreign("rbd", "PermissionError", errno=1), TRANSIENT, "permission_denied"),
    ("rbd", foreign("rados", "PermissionDeniedError", errno=13), TRANSIENT, "permission_denied"),
    ("rbd", foreign("rados", "ObjectNotFound"), TRANSIENT, "client"),
    ("rbd", foreign("rados", "TimedOut"), TRANSIENT, "client"),
    ("rbd", foreign("rados", "OperationTimeout"), TRANSIENT, "timeout"),
    ("vsphere", foreign("oslo_vmware.exceptions", "VimException"), TRANSIENT, "client"),
    *(
        ("vsphere", foreign("oslo_vmware.exceptions", name), outcome, reason)
        for name, outcome, reason in (
            ("FileLockedException", Outcome.IN_USE, "in_use"),
            ("TaskInProgress", Outcome.IN_USE, "in_use"),
            ("CannotDeleteFileException", REFUSED, "immutable"),
            ("FileFaultException", REFUSED, "not_a_file"),
            ("NoPermissionException", REFUSED, "permission_denied"),
        )
    ),
    # What comes from below.
    ("http", requests.ConnectionError(URL), TRANSIENT, "connection"),
    ("http", http_error(500), TRANSIENT, "connection"),
    ("s3", urllib3.exceptions.ProtocolError(URL), TRANSIENT, "client"),
    ("s3", urllib3.exceptions.ReadTimeoutError(None, URL, URL), TRANSIENT, "timeout"),  # type: ignore[arg-type] # no pool
    ("rbd", TimeoutError(), TRANSIENT, "timeout"),
    ("rbd", TimeoutError(errno.ETIMEDOUT, URL), TRANSIENT, "timeout"),
    ("rbd", socket.gaierror(-2, URL), TRANSIENT, "connection"),
    ("rbd", ConnectionResetError(errno.ECONNRESET, URL), TRANSIENT, "connection"),
    ("rbd", BrokenPipeError(), TRANSIENT, "connection"),
    ("file", OSError(errno.EIO, URL), TRANSIENT, "connection"),
    # What nobody expected.
    ("file", RuntimeError(URL), Outcome.UNKNOWN, "unexpected"),
    ("file", KeyError(URL), Outcome.UNKNOWN, "unexpected"),
    ("file", Exception(URL), Outcome.UNKNOWN, "unexpected"),
    ("file", AttributeError(URL), Outcome.UNKNOWN, "unexpected"),
    ("rbd", foreign("rbdish", "ImageBusy"), Outcome.UNKNOWN, "unexpected"),
]


@pytest.mark.parametrize(
    ("scheme", "error", "outcome", "reason"),
    CASES,
    ids=[f"{scheme}-{type(error).__name__}-{reason}" for scheme, error, _, reason in CASES],
)
def test_outcome_of_an_exception(
    scheme: str, error: Exception, outcome: Outcome, reason: str
) -> None:
    assert judge(error, scheme) == Verdict(outcome, reason, type(error).__name__)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(swift_error(498), id="Swift's own rate limit"),
        pytest.param(botocore_exceptions.ReadTimeoutError(endpoint_url=URL), id="botocore"),
        pytest.param(botocore_exceptions.ConnectTimeoutError(endpoint_url=URL), id="to connect"),
        pytest.param(requests.ReadTimeout(URL), id="requests"),
        pytest.param(http_error(503), id="requests's 503"),
    ],
)
def test_transient_exceptions(error: Exception) -> None:
    assert judge(error, "s3").outcome is TRANSIENT


def hidden(outer: Exception, cause: Exception) -> Exception:
    """Return an exception as a driver raises it while it handles another."""
    outer.__context__ = cause
    return outer


@pytest.mark.parametrize(
    ("number", "outcome", "reason"),
    [
        (errno.EPERM, REFUSED, "permission_denied"),
        (errno.EISDIR, REFUSED, "not_a_file"),
        (errno.ENOTDIR, REFUSED, "not_a_file"),
        (errno.ENOTEMPTY, REFUSED, "not_a_file"),
        (errno.ELOOP, REFUSED, "not_a_file"),
        (errno.ENAMETOOLONG, REFUSED, "not_a_file"),
        (errno.EBUSY, Outcome.IN_USE, "in_use"),
        (errno.ETXTBSY, Outcome.IN_USE, "in_use"),
        (errno.EACCES, TRANSIENT, "permission_denied"),
        (errno.EROFS, TRANSIENT, "read_only_file_system"),
        (errno.EIO, TRANSIENT, "io_error"),
        (errno.ESTALE, TRANSIENT, "io_error"),
        (None, TRANSIENT, "io_error"),
    ],
)
def test_cause_hidden_by_the_file_driver(number: int | None, outcome: Outcome, reason: str) -> None:
    cause = OSError() if number is None else OSError(number, URL)
    answer = judge(hidden(store_exceptions.Forbidden(URL), cause), "file")
    symbol = errno.errorcode[number] if number else ""
    assert answer == Verdict(outcome, reason, f"Forbidden {symbol}".strip())
    assert not answer.tells_overload


@pytest.mark.parametrize(
    ("code", "outcome", "reason"),
    [
        (400, Outcome.IN_USE, "in_use"),
        (409, Outcome.IN_USE, "in_use"),
        (401, TRANSIENT, "permission_denied"),
        (403, TRANSIENT, "permission_denied"),
        (413, TRANSIENT, "throttled"),
        (503, TRANSIENT, "throttled"),
        (500, TRANSIENT, "backend"),
        (None, TRANSIENT, "backend"),
    ],
)
def test_cause_hidden_by_the_cinder_driver(code: int | None, outcome: Outcome, reason: str) -> None:
    cause = foreign("cinderclient.exceptions", "ClientException", code=code)
    answer = judge(hidden(store_exceptions.BackendException(URL), cause), "cinder")
    assert answer == Verdict(outcome, reason, "BackendException")


@pytest.mark.parametrize(
    ("status", "code", "outcome", "reason"),
    [
        (403, "403", REFUSED, "refused"),
        (503, "503", TRANSIENT, "throttled"),
        (400, "400", TRANSIENT, "bad_store_configuration"),
        (500, "500", TRANSIENT, "bad_store_configuration"),
        (403, "SignatureDoesNotMatch", TRANSIENT, "permission_denied"),
    ],
)
def test_cause_hidden_by_the_s3_driver(
    status: int, code: str, outcome: Outcome, reason: str
) -> None:
    error = store_exceptions.BadStoreConfiguration(store_name="s3", reason=URL)
    answer = judge(hidden(error, client_error(status, code)), "s3")
    assert answer == Verdict(outcome, reason, "BadStoreConfiguration")


def test_cause_hidden_by_the_rbd_driver_is_not_about_one_image() -> None:
    error = store_exceptions.BadStoreConfiguration(store_name="ceph", reason=URL)
    cause = foreign("rados", "ObjectNotFound")
    assert judge(hidden(error, cause), "rbd").reason == "bad_store_configuration"


class TestRealFiles:
    """What the real driver raises for files that cannot be removed."""

    @pytest.fixture
    def driver(self, tmp_path: Path) -> filesystem.Store:
        conf = cfg.ConfigOpts()
        glance_store.register_opts(conf)
        conf([], default_config_files=[])
        conf.set_override("filesystem_store_datadir", str(tmp_path), "glance_store")
        driver = filesystem.Store(conf)
        driver.configure()
        return driver

    def judged(self, driver: filesystem.Store, path: Path) -> Verdict:
        conf = driver.conf
        target = location.Location("file", filesystem.StoreLocation, conf, uri=f"file://{path}")
        try:
            driver.delete(target)
        except store_exceptions.GlanceStoreException as error:
            return judge(error, "file")
        return judge(None, "file")

    def test_a_directory_in_its_place(self, driver: filesystem.Store, tmp_path: Path) -> None:
        (tmp_path / "image").mkdir()
        (tmp_path / "image" / "x").touch()
        answer = self.judged(driver, tmp_path / "image")
        assert answer == Verdict(REFUSED, "not_a_file", "Forbidden EISDIR")

    def test_a_path_through_a_file(self, driver: filesystem.Store, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert self.judged(driver, tmp_path / "file" / "image").reason == "not_a_file"

    @pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EROFS, errno.EIO])
    def test_an_error_of_unlink(
        self,
        driver: filesystem.Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
    ) -> None:
        def fail(_: str) -> None:
            raise OSError(number, "x")

        monkeypatch.setattr(os, "unlink", fail)
        answer = self.judged(driver, tmp_path / "image")
        assert answer.detail == f"Forbidden {errno.errorcode[number]}"


@pytest.mark.parametrize("reason", ["permission_denied", "read_only_file_system", "io_error"])
def test_failures_that_a_lower_rate_does_not_help(reason: str) -> None:
    assert not Verdict(TRANSIENT, reason).tells_overload
    assert not Verdict(REFUSED, "refused").tells_overload
    assert Verdict(TRANSIENT, "throttled").tells_overload


def test_nothing_raised_is_gone() -> None:
    assert judge(None, "file") == verdict.GONE
    assert verdict.GONE.outcome is Outcome.GONE


def test_a_location_that_cannot_be_deleted_here_says_why() -> None:
    error = StoreNotUsableError(verdict.STORE_AMBIGUOUS, "two stores fit")
    expected = Verdict(Outcome.CONFIGURATION, "store_ambiguous", hint="two stores fit")
    assert judge(error, "http") == expected


def test_outcomes_that_settle_a_location() -> None:
    assert {Outcome.GONE, Outcome.NOT_OURS, Outcome.SHARED} == FINISHED
    assert verdict.SHARED.outcome is Outcome.SHARED


def test_only_not_found_of_glance_store_means_gone() -> None:
    gone = {type(error) for _, error, outcome, _ in CASES if outcome is Outcome.GONE}
    assert gone == {store_exceptions.NotFound}
    for scheme, error, _, _ in CASES:
        if not isinstance(error, store_exceptions.NotFound):
            assert judge(error, scheme).outcome is not Outcome.GONE


@pytest.mark.parametrize(
    "attributes",
    [
        {"http_status": "503"},
        {"http_status": None},
        {"response": None},
        {"response": {}},
        {"response": {"Error": None, "ResponseMetadata": None}},
        {"response": {"Error": {}, "ResponseMetadata": {}}},
        {"response": {"Error": {"Code": 503}}},
        {"response": Ellipsis},  # is of no type that a client gives
        {"response": requests.Response()},
    ],
    ids=str,
)
def test_malformed_answer_in_an_exception_is_ignored(attributes: dict[str, Any]) -> None:
    error = foreign("somewhere", "OddError", **attributes)
    assert judge(error, "s3") == Verdict(Outcome.UNKNOWN, "unexpected", "OddError")


def _makers() -> Iterator[st.SearchStrategy[Exception]]:
    texts = st.text(min_size=8).map(lambda text: f"s3://key:{text}@host")
    for kind in (
        Exception,
        OSError,
        TimeoutError,
        store_exceptions.NotFound,
        store_exceptions.Forbidden,
        store_exceptions.BackendException,
        store_exceptions.BadStoreUri,
        store_exceptions.UnknownScheme,
        store_exceptions.StoreDeleteNotSupported,
        requests.ConnectionError,
        swiftclient.ClientException,
    ):
        yield texts.map(kind)
    yield texts.map(lambda text: client_error(503, text))
    yield texts.map(lambda text: swiftclient.ClientException(text, http_host=text, http_status=401))
    yield texts.map(lambda text: botocore_exceptions.EndpointConnectionError(endpoint_url=text))


@given(
    st.one_of(*_makers()),
    st.sampled_from(["file", "http", "s3", "swift+https", "rbd"]),
)
def test_verdict_shows_only_the_class_of_an_exception(error: Exception, scheme: str) -> None:
    answer = judge(error, scheme)
    assert answer.detail == type(error).__name__
    assert answer.reason.replace("_", "").isalpha()
    assert "://" not in repr(answer)
