# SPDX-License-Identifier: Apache-2.0
"""Each case beside each release of Glance, and at the end a table of what works.

The cases and their helpers are those of tests/functional. They and evscrub run in the default
environment; only Glance runs in the release's.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.functional.conftest import (
    RegistryFactory,
    database_url,
    glance,
    mariadb,
    postgresql,
    registry_url,
)
from tests.functional.glance_tables import make_tables
from tests.releases.environments import RELEASES, Release, make_environment
from tests.releases.table import Row, as_table
from tests.servers import DatabaseServer, MariaDB, PostgreSQL, RabbitMQ

__all__ = ["database_url", "glance", "mariadb", "postgresql", "registry_url"]

_PROPERTY = "release"


@pytest.fixture(scope="session", params=RELEASES, ids=lambda release: release.name)
def release(request: pytest.FixtureRequest) -> Release:
    """Return each release in turn."""
    made: Release = request.param
    return made


@pytest.fixture(scope="session")
def glance_python(release: Release) -> str:
    """Return the interpreter of the release's environment."""
    return str(make_environment(release))


@pytest.fixture(scope="session")
def rabbitmq(glance_python: str) -> Iterator[RabbitMQ]:
    """Return a RabbitMQ for each release, so that no queue is as another release made it."""
    with RabbitMQ() as server:
        yield server


@pytest.fixture(scope="session")
def new_registry(glance_python: str, mariadb: MariaDB, postgresql: PostgreSQL) -> RegistryFactory:
    """Return a function that makes a database with the tables of the release."""
    servers: dict[str, DatabaseServer] = {"mariadb": mariadb, "postgresql": postgresql}

    def make(kind: str, name: str) -> str:
        url = servers[kind].new_database(name)
        make_tables(url, glance_python)
        return url

    return make


@pytest.fixture(scope="module")
def backend() -> str:
    """Return the kind of database."""
    return "mariadb"


class Outcomes:
    """Notes how the cases end, and writes the table."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Make each case's report name its release."""
        for item in items:
            if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
                item.user_properties.append((_PROPERTY, item.callspec.params["release"]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a case that ran, and note one that failed."""
        release = dict(report.user_properties).get(_PROPERTY)
        if not isinstance(release, Release):
            return
        row = self._rows.setdefault(
            release.name, Row(release.version, release.openstack, platform.python_version())
        )
        path, _, name = report.nodeid.partition("::")
        area = Path(path).stem.removeprefix("test_")
        if report.when == "call":
            row.ran[area] += 1
        if report.failed:
            case = name.partition("[")[0].rpartition("::")[2].removeprefix("test_")
            # What every case of an area needs fails before each of them.
            what = case.replace("_", " ") if report.when == "call" else str(report.when)
            row.fail(f"{area}: {what}")

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table."""
        terminalreporter.section(f"Glance releases, {datetime.now(UTC).date()}")
        rows = [self._rows[known.name] for known in RELEASES if known.name in self._rows]
        terminalreporter.write_line(as_table(rows))


def pytest_configure(config: pytest.Config) -> None:
    """Note how the cases end."""
    config.pluginmanager.register(Outcomes(), "release-outcomes")
