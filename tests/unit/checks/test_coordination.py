# SPDX-License-Identifier: Apache-2.0
"""What ``evscrub check`` says of how agents share their limits."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from amqp import exceptions as amqp_errors
from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Code

from evscrub.checks import coordination
from evscrub.checks.report import Findings
from evscrub.checks.subject import Subject
from evscrub.config.options import GROUPS
from evscrub.coordination.capabilities import Published
from evscrub.coordination.coordinator import Coordinator
from evscrub.intake import amqp
from evscrub.intake.amqp import Broker
from tests.servers import free_port

PASSWORD = "topsecret"


@pytest.fixture
def conf() -> cfg.ConfigOpts:
    made = cfg.ConfigOpts()
    made([], project="evscrub", default_config_files=[], default_config_dirs=[])
    for group, options in GROUPS.items():
        made.register_opts(options, None if group == "DEFAULT" else group)
    amqp.configured(made)  # registers oslo.messaging's options
    made.set_override("transport_url", "rabbit://u:p@host/", "oslo_messaging_notifications")
    return made


class Checked:
    """Runs the check.

    :ivar consumers: number of consumers of the bus's queue, or the error that asking raises; None
        if no broker can be reached.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.conf = conf
        self.consumers: int | Exception | None = None

    def set(self, group: str, **options: object) -> None:
        for name, value in options.items():
            self.conf.set_override(name, value, group)

    @contextmanager
    def connection(self, _: Broker) -> Iterator[Any]:
        yield SimpleNamespace(channel=lambda: self)

    def queue_declare(self, name: str, *, passive: bool) -> SimpleNamespace:
        assert passive
        assert name == "evscrub.info"
        if isinstance(self.consumers, Exception):
            raise self.consumers
        return SimpleNamespace(consumer_count=self.consumers)

    def close(self) -> None:
        pass

    def __call__(self) -> Findings:
        broker = None if self.consumers is None else cast("Broker", SimpleNamespace())
        found = coordination.coordination(Subject(self.conf, broker=broker))
        assert PASSWORD not in str(found.details)
        return found


@pytest.fixture
def check(conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch) -> Checked:
    made = Checked(conf)
    monkeypatch.setattr(amqp, "connection", made.connection)
    return made


@pytest.fixture
def directory(check: Checked, tmp_path: Path) -> Path:
    """Configure the file driver, and return its directory."""
    made = tmp_path / "group"
    check.set("coordination", backend_url=f"file://{made}")
    check.set("scrubber", rate=50)
    return made


def join(directory: Path, *names: str, group: str = "evscrub.default") -> None:
    for name in names:
        Coordinator(f"file://{directory}", group, name, 30, 3).beat(
            Published(Fraction(1, len(names)))
        )


@pytest.mark.parametrize(
    ("limits", "consumers", "code", "said"),
    [
        ({}, 3, Code.SUCCESS, "no rate is limited"),
        ({"rate": 50}, 3, Code.WARNING, "rate holds for each of them"),
        ({"store_rate": {"a": 5}}, 2, Code.WARNING, "store_rate holds for each of them"),
        ({"store_rate": {"a": 0}}, 2, Code.SUCCESS, "no rate is limited"),
        (
            {"rate": 50, "owner_rate": 1},
            4,
            Code.WARNING,
            "rate and owner_rate hold for each of them, so the stores get up to 4 times as much.",
        ),
        ({"rate": 50}, 1, Code.SUCCESS, "1 agent consumes from the bus"),
        ({"rate": 50}, 0, Code.SUCCESS, "0 agents consume from the bus"),
        ({"rate": 50}, None, Code.SUCCESS, "is not known"),
        ({"rate": 50}, amqp_errors.NotFound("no queue"), Code.SUCCESS, "is not known"),
        ({"rate": 50}, OSError("reset"), Code.SUCCESS, "is not known"),
        ({"shared_concurrency": True}, 3, Code.WARNING, "has no effect"),
    ],
)
def test_each_agent_by_itself(
    check: Checked,
    limits: dict[str, object],
    consumers: int | Exception | None,
    code: Code,
    said: str,
) -> None:
    check.set("scrubber", **limits)
    check.consumers = consumers
    found = check()
    assert found.code is code
    assert "Each agent by itself" in str(found.details)
    assert said in str(found.details)


def test_missing_library_is_named(check: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    check.set("coordination", backend_url=f"redis://:{PASSWORD}@host:1")
    monkeypatch.setitem(sys.modules, "tooz", None)
    found = check()
    assert found.code is Code.FAILURE
    assert "install evscrub[coordination]" in str(found.details)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"nosuch://u:{PASSWORD}@host", "driver 'nosuch' is unknown"),
        (f"redis://:{PASSWORD}@host:port", "no valid URL"),
        ("file://relative/path", "full path"),
        (f"mysql://u:{PASSWORD}@host/name", "has no groups; use etcd"),
        (f"postgresql://u:{PASSWORD}@host/name", "has no groups; use etcd"),
        ("ipc://here", "has no groups; use etcd"),
        (f"kubernetes://u:{PASSWORD}@host?namespace=a", "has no groups; use etcd"),
    ],
)
def test_unusable_backend_fails(check: Checked, url: str, said: str) -> None:
    check.set("coordination", backend_url=url)
    found = check()
    assert found.code is Code.FAILURE
    assert said in str(found.details)


def test_heartbeats_too_far_apart_fail(check: Checked) -> None:
    check.set(
        "coordination", backend_url="redis://host", heartbeat_interval=30, membership_timeout=30
    )
    found = check()
    assert found.code is Code.FAILURE
    assert "membership_timeout must be at least" in str(found.details)


@pytest.mark.parametrize("driver", ["redis", "etcd3+http", "memcached"])
def test_a_coordinator_that_refuses_connections_fails(check: Checked, driver: str) -> None:
    login = f":{PASSWORD}@" if driver == "redis" else ""
    check.set("coordination", backend_url=f"{driver}://{login}127.0.0.1:{free_port()}")
    found = check()
    assert found.code is Code.FAILURE
    assert "The coordinator does not answer: " in str(found.details)
    assert "not within" not in str(found.details)


def test_a_coordinator_that_says_nothing_fails_in_time(
    check: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its client waits for."""
    monkeypatch.setattr(coordination, "_SECONDS", 0.2)
    asked, let_go, answered = threading.Event(), threading.Event(), threading.Event()

    def look(_: Coordinator) -> dict[str, Published | None]:
        asked.set()
        let_go.wait(10)
        answered.set()
        return {}

    monkeypatch.setattr(Coordinator, "look", look)
    check.set("coordination", backend_url="redis://127.0.0.1:1")
    try:
        found = check()
        assert not answered.is_set()
    finally:
        let_go.set()
    assert asked.wait(20)
    assert found.code is Code.FAILURE
    assert "The coordinator does not answer: not within" in str(found.details)


def test_all_consumers_are_members(check: Checked, directory: Path) -> None:
    join(directory, "one:1:a", "two:2:b")
    check.consumers = 2
    found = check()
    assert found.code is Code.SUCCESS
    assert "evscrub.default has 2 members: one:1:a 1/2, two:2:b 1/2." in str(found.details)
    assert "2 agents consume from the bus." in str(found.details)


def test_the_check_does_not_join(check: Checked, directory: Path) -> None:
    join(directory, "one:1:a")
    for _ in range(2):
        assert "has 1 member: one:1:a 1." in str(check().details)


@pytest.mark.parametrize("members", [0, 2])
def test_fewer_members_than_consumers_warn(check: Checked, directory: Path, members: int) -> None:
    join(directory, *[f"host:{number}:a" for number in range(members)])
    check.consumers = 3
    found = check()
    assert found.code is Code.WARNING
    details = str(found.details)
    assert f"3 agents consume from the bus, but the group has {members} members." in details
    for cause in ("without [coordination] backend_url", "another [coordination] name", "log"):
        assert cause in details
    assert "another service that consumes evscrub.info" in details


def test_another_group_is_another_group(check: Checked, directory: Path) -> None:
    join(directory, "one:1:a", group="evscrub.east")
    check.consumers = 1
    assert "evscrub.default has 0 members." in str(check().details)
    check.set("coordination", name="east")
    assert "evscrub.east has 1 member: one:1:a 1." in str(check().details)


def test_more_members_than_consumers_are_in_order(check: Checked, directory: Path) -> None:
    """One that died stays for a while."""
    join(directory, "one:1:a", "two:2:b")
    check.consumers = 1
    assert check().code is Code.SUCCESS


def test_a_directory_that_no_agent_has_used_stays_unused(check: Checked, directory: Path) -> None:
    """The check may run as another user than the agents."""
    check.consumers = 0
    found = check()
    assert found.code is Code.SUCCESS
    assert "has 0 members." in str(found.details)
    assert not directory.exists()


def test_a_member_without_a_readable_share_warns(check: Checked, directory: Path) -> None:
    join(directory, "one:1:a")
    Coordinator(f"file://{directory}", "evscrub.default", "odd", 30, 3).beat(
        Published(Fraction(10**12, 7))
    )
    found = check()
    assert found.code is Code.WARNING
    assert "odd of an unknown share" in str(found.details)
    assert "publishes no share that this release can read" in str(found.details)


@pytest.mark.parametrize(("expected", "code"), [(0, 0), (1, 1), (2, 0), (3, 0)])
def test_more_members_than_expected_warn(
    check: Checked, directory: Path, expected: int, code: int
) -> None:
    join(directory, "one:1:a", "two:2:b")
    check.set("coordination", expected_members=expected)
    found = check()
    assert int(found.code) == code
    assert ("Set it to 2" in str(found.details)) is bool(code)


@pytest.mark.parametrize(("expected", "code"), [(0, 1), (2, 0)])
def test_another_bus_needs_the_number_of_agents(
    check: Checked, directory: Path, expected: int, code: int
) -> None:
    check.set("oslo_messaging_notifications", transport_url="kombu+memory://")
    check.set("coordination", expected_members=expected)
    found = check()
    assert int(found.code) == code
    assert ("Set [coordination] expected_members" in str(found.details)) is bool(code)


def test_a_group_without_limits_is_told(check: Checked, directory: Path) -> None:
    check.set("scrubber", rate=0)
    found = check()
    assert found.code is Code.SUCCESS
    assert "sets no limit" in str(found.details)
