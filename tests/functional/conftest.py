# SPDX-License-Identifier: Apache-2.0
"""Real servers for the functional tests; each starts when a test first asks for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from evscrub.demo.glance import GlanceProcess
from evscrub.demo.glance_config import GlanceConfig, migrate, write_config
from tests.servers import DatabaseServer, MariaDB, PostgreSQL, RabbitMQ, free_port
from tests.sharing import shared

#: Glance's tables that belong to images, each before those that it refers to.
IMAGE_TABLES = ("image_locations", "image_members", "image_properties", "image_tags", "images")

GlanceFactory = Callable[..., GlanceProcess]


@pytest.fixture(scope="module")
def rabbitmq() -> RabbitMQ:
    """Return the run's RabbitMQ as seen from a virtual host of the module's own."""
    return shared(RabbitMQ).new_vhost()


@pytest.fixture
def own_rabbitmq() -> Iterator[RabbitMQ]:
    """Return a RabbitMQ that the test may stop and start."""
    with RabbitMQ() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> MariaDB:
    """Return the run's MariaDB."""
    return shared(MariaDB)


@pytest.fixture
def own_mariadb() -> Iterator[MariaDB]:
    """Return a MariaDB that the test may stop and start."""
    with MariaDB() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql() -> PostgreSQL:
    """Return the run's PostgreSQL."""
    return shared(PostgreSQL)


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return the name of each kind of database in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def database_url(
    backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Return the URL of an empty database of the module's own, of each kind in turn."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'glance.sqlite'}"
    server: DatabaseServer = request.getfixturevalue(backend)
    module = request.module.__name__.rpartition(".")[2]
    return server.new_database(module)


@pytest.fixture(scope="session")
def glance_python() -> str:
    """Return the interpreter that runs Glance."""
    return sys.executable


@pytest.fixture(scope="module")
def _migrated_url(
    database_url: str, glance_python: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    make_tables(database_url, tmp_path_factory.mktemp("migrate"), glance_python)
    return database_url


def make_tables(database_url: str, directory: Path, python: str = sys.executable) -> None:
    """Make Glance's tables in an empty database."""
    config = GlanceConfig(directory, free_port(), database_url, "kombu+memory://", python=python)
    write_config(config)
    migrate(config)


@pytest.fixture
def registry_url(_migrated_url: str) -> str:
    """Return the URL of a database with Glance's tables and no image in them."""
    engine = sa.create_engine(_migrated_url, poolclass=NullPool)
    with engine.begin() as connection:
        for table in IMAGE_TABLES:
            connection.execute(sa.text(f"DELETE FROM {table}"))
    engine.dispose()
    return _migrated_url


@pytest.fixture(scope="module")
def glance(glance_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceFactory]:
    """Return a function that starts a Glance; the module's end stops it.

    The function takes the fields of `GlanceConfig` but `directory` and `port` by name.
    Without `database_url` it takes a SQLite file, without `transport_url` a bus that
    nobody else sees.
    """
    with ExitStack() as stack:

        def start(**fields: Any) -> GlanceProcess:
            directory = tmp_path_factory.mktemp("glance")
            fields.setdefault("database_url", f"sqlite:///{directory / 'glance.sqlite'}")
            fields.setdefault("transport_url", "kombu+memory://")
            fields.setdefault("python", glance_python)
            config = GlanceConfig(directory=directory, port=free_port(), **fields)
            return stack.enter_context(GlanceProcess(config))

        yield start
