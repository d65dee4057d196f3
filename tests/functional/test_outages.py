# SPDX-License-Identifier: Apache-2.0
"""Databases and brokers that are frozen, away or behind a virtual IP address: nothing hangs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from evscrub.demo.glance_config import GlanceConfig, migrate, write_config
from tests.functional import commands, prometheus
from tests.functional.agents import AgentProcess, Registry, wait_for
from tests.functional.conftest import RegistryFactory
from tests.functional.seed import Seed
from tests.functional.test_status import get, scrape
from tests.servers import DatabaseServer, MariaDB, PostgreSQL, Proxy, RabbitMQ, free_port

LATER = 3600
#: An outage of more than a minute has a line of its own, and a server may take that long to start.
REMINDER = "has been away for"
#: What a command may take that gives up: the probe's ten seconds, and what a busy machine needs.
GIVE_UP_SECONDS = 55.0
SERVERS: dict[str, type[DatabaseServer]] = {"mariadb": MariaDB, "postgresql": PostgreSQL}


@pytest.fixture(scope="module", params=["mariadb", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(kind: str) -> Iterator[DatabaseServer]:
    """Return a database server that the module may stop."""
    with SERVERS[kind]() as running:
        yield running


@pytest.fixture(scope="module")
def url(server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a registry with Glance's tables."""
    made = server.new_database("outages")
    migrate(site(tmp_path_factory.mktemp("glance"), made))
    return made


def site(directory: Path, url: str, bus: str = "kombu+memory://") -> GlanceConfig:
    """Write the configuration of a Glance that does not run."""
    glance = GlanceConfig(directory, free_port(), url, bus, stores={"fast": "file"})
    write_config(glance)
    return glance


def agent_of(directory: Path, glance: GlanceConfig, port: int) -> AgentProcess:
    """Return an agent with an operator's settings: it does not log at DEBUG."""
    options: dict[str, dict[str, object]] = {
        "DEFAULT": {"debug": False, "scrub_time": LATER},
        "status": {"listen": f"127.0.0.1:{port}"},
        "scrubber": {"claim_timeout": 120},  # the default, and not the tests' own
        "sweep": {"full_interval": 10},
    }
    return AgentProcess(directory, glance, options)


@contextmanager
def frozen(server: DatabaseServer) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


def lines_after(agent: AgentProcess, seen: int) -> list[str]:
    """Return an agent's log after the given number of characters, without times."""
    return [re.sub(r"^[\d :.-]+ \d+ ", "", line) for line in agent.log[seen:].splitlines()]


def lines_of_change(agent: AgentProcess, seen: int) -> list[str]:
    """Return those of the lines that do not repeat what others tell."""
    lines = lines_after(agent, seen)
    return [line for line in lines if "Sweep (" not in line and REMINDER not in line]


def test_commands_give_up_on_a_frozen_server(
    server: DatabaseServer, url: str, tmp_path: Path
) -> None:
    agent = agent_of(tmp_path, site(tmp_path, url), free_port())
    agent.write_config()
    image_id = "0" * 36
    calls: dict[str, tuple[str, ...]] = {
        "check": ("check",),
        "list": ("list",),
        "agent": ("agent",),
        "restore": ("restore", image_id),
        "hold": ("hold", image_id),
        "release": ("release", image_id),
    }

    def run(name: str) -> tuple[str, int, float, str]:
        command, *rest = calls[name]
        began = time.monotonic()
        done = commands.run(command, "--config-file", agent.config_path, *rest)
        return name, done.returncode, time.monotonic() - began, done.stdout + done.stderr

    assert commands.run("check", "--config-file", agent.config_path).returncode != 255
    with frozen(server), ThreadPoolExecutor(len(calls)) as pool:
        for name, code, seconds, said in pool.map(run, calls):
            # Those of oslo.upgradecheck for check.
            assert code == (2 if name == "check" else os.EX_UNAVAILABLE), (name, said)
            assert seconds < GIVE_UP_SECONDS, (name, seconds)
            # The driver's own time-out, half of claim_timeout, may be the first to end.
            words = re.sub(r"[|\s]+", " ", said)
            assert re.search("has not answered for 10 s|timed out|timeout expired", words), said
            assert "check that the database runs" in words
            assert "Traceback" not in said
            if name != "check":
                assert len([line for line in said.splitlines() if "evscrub:" in line]) == 1, said


def test_agent_reports_a_frozen_server_and_uses_one_that_answers(
    server: DatabaseServer, url: str, tmp_path: Path
) -> None:
    """Existing connections lead to a frozen node, new ones to a node that answers."""
    port = free_port()
    with Proxy(server.port) as proxy:
        near = server.database_url(url.rpartition("/")[2], port=proxy.port)
        glance = site(tmp_path, near)
        agent = agent_of(tmp_path, glance, port)
        # So that the sweep, which asks first, waits for 20 s and not for 60.
        agent.options["scrubber"]["claim_timeout"] = 40
        seed = Seed(replace(glance, database_url=url))
        registry = Registry(url)
        with agent:
            wait_for("readiness", lambda: get(port, "/readyz").status_code == 200)
            proxy.swallow()
            seen = len(agent.log)
            began = time.monotonic()
            image_id = seed.add(deleted_ago=2 * LATER)
            seed.write()
            wait_for("notice", lambda: scrape(port)["evscrub_database_up"] == 0)
            assert get(port, "/readyz").status_code == 503
            assert "the registry does not answer" in get(port, "/readyz").text
            proxy.forward_new()
            wait_for("scrubbing", lambda: registry.is_scrubbed(image_id))
            wait_for("readiness again", lambda: get(port, "/readyz").status_code == 200)
            assert time.monotonic() - began < 110
            wait_for("the end of it", lambda: "is back after" in agent.log[seen:])
            said = lines_after(agent, seen)
        assert [line for line in said if "The registry is away: " in line], said
        assert "Traceback" not in agent.log
        registry.engine.dispose()


def test_agent_stops_while_the_server_is_frozen(
    server: DatabaseServer, url: str, tmp_path: Path
) -> None:
    with agent_of(tmp_path, site(tmp_path, url), free_port()) as agent, frozen(server):
        assert agent.stop(30) == 0


def test_database_outage_is_logged_once(server: DatabaseServer, url: str, tmp_path: Path) -> None:
    port = free_port()
    with agent_of(tmp_path, site(tmp_path, url), port) as agent:
        wait_for("readiness", lambda: get(port, "/readyz").status_code == 200)
        seen = len(agent.log)
        began = time.monotonic()
        well = prometheus.scrape(port, "a")
        server.stop()
        try:
            wait_for("notice", lambda: scrape(port)["evscrub_database_up"] == 0)
            trouble = prometheus.scrape(port, "a")
            for _ in range(20):  # those who ask for readiness make errors too
                get(port, "/readyz")
            wait_for("some time", lambda: time.monotonic() > began + 15)
        finally:
            server.start()
        wait_for("the end of it", lambda: "The registry is back" in agent.log[seen:])
        away = time.monotonic() - began
        after = prometheus.scrape(port, "a")
        said = lines_of_change(agent, seen)
    assert len(said) == 2, "\n".join(said)
    assert re.match(
        r"WARNING evscrub\.telemetry\.outage .*The registry is away: .*every 5 s$", said[0]
    )
    told = re.search(
        r"INFO evscrub\.telemetry\.outage .*The registry is back after (\d+) s$", said[1]
    )
    assert told is not None
    assert 5 <= int(told[1]) <= away + 1
    prometheus.check_alert(tmp_path, "EvscrubRegistryAway", well, trouble, after)


@pytest.fixture(scope="module")
def quiet_url(new_registry: RegistryFactory) -> str:
    return new_registry("sqlite", "outages")


def test_broker_outage_is_logged_once(
    own_rabbitmq: RabbitMQ, quiet_url: str, tmp_path: Path
) -> None:
    own_rabbitmq.start()
    port = free_port()
    with agent_of(tmp_path, site(tmp_path, quiet_url, own_rabbitmq.url), port) as agent:
        seen = len(agent.log)
        began = time.monotonic()
        well = prometheus.scrape(port, "a")
        own_rabbitmq.stop()
        agent.wait_for_log("The bus is away", after=seen)
        wait_for("the end of the listener", lambda: scrape(port)["evscrub_bus_joined"] == 0)
        trouble = prometheus.scrape(port, "a")
        wait_for("some time", lambda: time.monotonic() > began + 20)
        own_rabbitmq.start()
        agent.wait_for_log("The bus is back", after=seen)
        away = time.monotonic() - began
        wait_for("the listener", lambda: scrape(port)["evscrub_bus_joined"] == 1)
        after = prometheus.scrape(port, "a")
        said = lines_of_change(agent, seen)
    assert len(said) == 2, "\n".join(said)
    assert re.match(
        r"WARNING evscrub\.telemetry\.outage .*The bus is away: .*sweeps find what is deleted$",
        said[0],
    )
    told = re.search(r"INFO evscrub\.telemetry\.outage .*The bus is back after (\d+) s$", said[1])
    assert told is not None
    assert 15 <= int(told[1]) <= away + 1
    prometheus.check_alert(tmp_path, "EvscrubBusAway", well, trouble, after)


def test_broker_outage_at_start_is_logged_once(
    rabbitmq: RabbitMQ, quiet_url: str, tmp_path: Path
) -> None:
    port = free_port()
    url = rabbitmq.seen_at(port).url
    agent = agent_of(tmp_path, site(tmp_path, quiet_url, url), free_port())
    try:
        agent.start(joined=False)
        began = time.monotonic()
        wait_for("some time", lambda: time.monotonic() > began + 10)
        with Proxy(rabbitmq.port, port):
            agent.wait_for_log("Listening on the bus")
            lines = lines_after(agent, 0)
    finally:
        agent.__exit__()
    about = [line for line in lines if ("AMQP" in line or "bus" in line) and REMINDER not in line]
    assert len(about) == 3, "\n".join(about)
    assert re.search(
        r"The bus is away: .*refused \(127\.0\.0\.1:\d+\)\. Until it is back, sweeps find.*$",
        about[0],
    )
    assert "The bus is back after" in about[1]
    assert "Listening on the bus" in about[2]
