# SPDX-License-Identifier: Apache-2.0
"""Tokens and connections that swiftclient's clients share, against a server of HTTP."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import swiftclient
from glance_store._drivers.swift import store
from keystoneauth1 import session
from oslo_config import cfg

from evscrub.domain.verdict import Outcome, judge
from evscrub.stores import swift_clients

AUTH_URL = "http://keystone.test/v3/"


class Swift:
    """A Swift that accepts tokens, and the Keystone that makes them."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.connections = 0
        self.together = threading.Barrier(1)
        self.statuses: list[int] = []
        self.tokens: list[str] = []
        self.served: list[tuple[str, str]] = []
        swift = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                swift.connections += 1

            def do_DELETE(self) -> None:
                swift.together.wait(30)
                token = self.headers["X-Auth-Token"]
                swift.served.append((token, self.path))
                status = swift.statuses.pop() if swift.statuses else 204
                self.send_response(401 if token in swift.revoked else status)
                body = b"" if status == 204 else b"no"
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1/AUTH_test"

    def get_auth(self, _url: str, user: str, _key: str, **options: Any) -> tuple[str, str]:
        """Do what Keystone does."""
        url = options["os_options"].get("object_storage_url") or self.url
        self.tokens.append(f"{user}{len(self.tokens) + 1}")
        return url, self.tokens[-1]


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> Iterator[Swift]:
    swift = Swift()
    monkeypatch.setattr(swiftclient.client, "get_auth", swift.get_auth)
    monkeypatch.setattr(swiftclient.client, "sleep", lambda _: None)
    thread = threading.Thread(target=swift.server.serve_forever, args=(0.01,))
    thread.start()
    yield swift
    swift.server.shutdown()
    swift.server.server_close()
    thread.join()


class Driver:
    """Deletes as glance_store's driver does, with a client for each object.

    :param now: what the clock says, in seconds.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self._module: Any = SimpleNamespace(swiftclient=swiftclient, ks_session=session)
        monkeypatch.setitem(sys.modules, "glance_store._drivers.swift.store", self._module)
        swift_clients.share(lambda: self.now)
        shared = self._module.swiftclient
        swift_clients.share(lambda: self.now)  # as for a second store
        assert self._module.swiftclient is shared

    def delete(self, name: str, **options: Any) -> None:
        who = {"user": "a", "key": "secret", "tenant_name": "p", "auth_version": "3"}
        client = self._module.swiftclient.Connection(**{"authurl": AUTH_URL, **who, **options})
        client.delete_object("glance", name)


@pytest.fixture
def driver(swift: Swift, monkeypatch: pytest.MonkeyPatch) -> Driver:
    return Driver(monkeypatch)


def test_deletes_share_a_token_and_a_connection(swift: Swift, driver: Driver) -> None:
    for number in range(3):
        driver.delete(str(number))
    assert swift.served == [("a1", f"/v1/AUTH_test/glance/{number}") for number in range(3)]
    assert swift.connections == 1


@pytest.mark.parametrize(
    "other",
    [
        {"authurl": "http://other.test/v3/"},
        {"user": "b"},
        {"key": "another"},
        {"tenant_name": "q"},
        {"auth_version": "2"},
        {"os_options": {"region_name": "r"}},
        {"os_options": {"application_credential_id": "i"}},
        {"preauthurl": "http://127.0.0.1:1/v1/AUTH_other"},
        {"insecure": True},
        {"cacert": "/etc/ssl/ca.pem"},
    ],
    ids=str,
)
def test_who_is_not_the_same_has_another_token(
    swift: Swift, driver: Driver, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(
        swiftclient.client, "delete_object", lambda url, token, *_, **__: sent.append((url, token))
    )
    for _ in range(2):
        driver.delete("x")
        driver.delete("x", **other)
    assert len(swift.tokens) == 2
    assert [token for _, token in sent] == swift.tokens * 2
    assert len({url for url, _ in sent}) == 1 + ("preauthurl" in other)


def test_a_refused_token_is_replaced_for_all(swift: Swift, driver: Driver) -> None:
    driver.delete("0")
    swift.revoked.add("a1")
    driver.delete("1")
    driver.delete("2")
    assert [token for token, _ in swift.served] == ["a1", "a1", "a2", "a2"]
    assert swift.connections == 1  # others may be using it


def test_a_user_who_is_refused_with_each_token_is_told_so(swift: Swift, driver: Driver) -> None:
    swift.revoked |= {f"a{number}" for number in range(9)}
    for _ in range(2):
        with pytest.raises(swiftclient.ClientException) as caught:
            driver.delete("0")
        assert caught.value.http_status == 401
    assert swift.tokens == ["a1", "a2", "a3", "a4"]


def test_a_refused_token_of_an_application_credential_is_replaced_too(
    swift: Swift, driver: Driver
) -> None:
    """Swiftclient asks for no second one without a password."""
    credential = {"application_credential_id": "i", "application_credential_secret": "s"}
    options: dict[str, Any] = {"user": None, "key": None, "os_options": credential}
    driver.delete("0", **options)
    swift.revoked |= {"None1"}
    driver.delete("1", **options)
    assert [token for token, _ in swift.served] == ["None1", "None1", "None2"]
    swift.revoked |= {"None2", "None3", "None4"}
    with pytest.raises(swiftclient.ClientException):
        driver.delete("2", **options)
    assert [token for token, _ in swift.served[3:]] == ["None2", "None3"]


def test_a_role_that_was_missing_counts_at_the_next_delete(swift: Swift, driver: Driver) -> None:
    swift.statuses = [403]
    with pytest.raises(swiftclient.ClientException):
        driver.delete("0")
    driver.delete("0")
    assert [token for token, _ in swift.served] == ["a1", "a2"]


@pytest.mark.parametrize(
    ("status", "connections"), [(408, 2), (499, 2), (429, 1), (498, 1), (503, 1), (404, 1)]
)
def test_a_connection_that_is_cut_off_is_not_used_again(
    swift: Swift, driver: Driver, status: int, connections: int
) -> None:
    swift.statuses = [status]
    with suppress(swiftclient.ClientException):
        driver.delete("0")
    driver.delete("1")
    assert swift.connections == connections


def test_a_token_is_used_for_a_minute(swift: Swift, driver: Driver) -> None:
    """A role that its user has got since is not in it."""
    for driver.now in (0.0, 59.9, 60.0, 119.9, 120.0):
        driver.delete("0")
    assert [token for token, _ in swift.served] == ["a1", "a1", "a2", "a2", "a3"]


def test_tokens_that_are_not_used_any_more_are_forgotten() -> None:
    tokens, times = swift_clients._Tokens(lambda: times[-1]), [0.0]
    for number in range(1000):
        times.append(times[-1] + 1)
        tokens.get(number, lambda: ("url", "token"))
    assert len(tokens._tokens) == swift_clients.TOKEN_SECONDS


def test_connections_do_not_idle_for_long(swift: Swift, driver: Driver) -> None:
    """What lies between may drop them without a word."""
    for driver.now in (0.0, 9.9, 10.0, 19.9):
        driver.delete("0")
    assert swift.connections == 2


def test_a_swift_that_says_nothing_is_given_up(
    swift: Swift, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swift_clients, "ANSWER_SECONDS", 0.1)
    driver = Driver(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/AUTH_test"
        end = threading.Timer(20, silent.shutdown, [socket.SHUT_RDWR])
        end.start()
        with pytest.raises(requests.exceptions.ReadTimeout) as caught:
            driver.delete("0", preauthurl=url)
        end.cancel()
    assert judge(caught.value, "swift").outcome is Outcome.TRANSIENT


def test_keystone_may_take_as_long(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def refuse(*_: Any, **options: Any) -> tuple[str, str]:
        asked.append(options)
        raise ConnectionRefusedError

    monkeypatch.setattr(swiftclient.client, "get_auth", refuse)
    with pytest.raises(ConnectionRefusedError):
        driver.delete("0")
    assert asked[0]["timeout"] == 60


def test_a_request_for_data_may_take_as_long() -> None:
    """Its client asks Keystone by a session of its own."""
    conf = cfg.ConfigOpts()
    driver: Any = store.SingleTenantStore
    location = SimpleNamespace(swift_url=AUTH_URL, user="p:a", key="secret")
    conf.register_opts(driver.OPTIONS, "glance_store")
    conf([], default_config_files=[], default_config_dirs=[])
    with pytest.MonkeyPatch.context() as patch:
        for name in ("swiftclient", "ks_session"):
            patch.setattr(store, name, getattr(store, name))
        swift_clients.share()
        made = driver(conf)
        for name in ("user_domain_id", "user_domain_name", "project_domain_id"):
            setattr(made, name, "default")
        made.project_domain_name, made.ks_verify = None, True
        assert made.init_client(location).session.timeout == 60


def test_each_of_many_deletes_at_a_time_keeps_its_connection(swift: Swift, driver: Driver) -> None:
    """Requests keeps ten."""
    swift.together = threading.Barrier(20)
    for _ in range(2):
        threads = [threading.Thread(target=driver.delete, args=(str(n),)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(swift.served) == 40
    assert swift.connections == 20


def test_a_keystone_that_does_not_answer_keeps_nobody_else_waiting(
    swift: Swift, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, answer = threading.Event(), threading.Event()

    def hang(*arguments: Any, **options: Any) -> tuple[str, str]:
        begun.set()
        assert answer.wait(30)
        return swift.get_auth(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(swiftclient.client, "get_auth", hang)
        thread = threading.Thread(target=driver.delete, args=("slow",))
        thread.start()
        assert begun.wait(30)
    driver.delete("fast")
    assert swift.served == [("a1", "/v1/AUTH_test/glance/fast")]
    answer.set()
    thread.join(30)
    assert [token for token, _ in swift.served] == ["a1", "a2"]
