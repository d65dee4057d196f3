# SPDX-License-Identifier: Apache-2.0
"""Real servers for the functional tests; each starts when a test first asks for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from evscrub.demo.glance_config import GlanceConfig
from tests.forking import GlancePython
from tests.functional import store_servers
from tests.functional.glance_tables import TEMPLATES
from tests.functional.store_servers import BUCKET, FakeLibraries, StoreServer
from tests.glance_process import GlanceProcess
from tests.servers import MariaDB, PostgreSQL, RabbitMQ, free_port
from tests.sharing import shared

#: Glance's tables that belong to images, each before those that it refers to.
IMAGE_TABLES = ("image_locations", "image_members", "image_properties", "image_tags", "images")

GlanceFactory = Callable[..., GlanceProcess]
RegistryFactory = Callable[[str, str], str]


@pytest.fixture(scope="module")
def rabbitmq() -> RabbitMQ:
    """Return the run's RabbitMQ as seen from a virtual host of the module's own."""
    return shared(RabbitMQ).new_vhost()


@pytest.fixture
def own_rabbitmq() -> Iterator[RabbitMQ]:
    """Return a RabbitMQ that is not started yet, and that the test may start and stop."""
    server = RabbitMQ()
    yield server
    server.close()


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


@pytest.fixture(scope="session")
def glance_python() -> str:
    """Return the interpreter that runs Glance."""
    return str(shared(GlancePython).python)


@pytest.fixture(scope="session")
def new_registry(tmp_path_factory: pytest.TempPathFactory) -> RegistryFactory:
    """Return a function that makes a database with Glance's tables, and returns its URL.

    It takes the kind of database and what its name begins with.
    """
    return lambda kind, name: shared(TEMPLATES[kind]).copy(
        name, tmp_path_factory.mktemp("registry")
    )


@pytest.fixture(scope="module")
def database_url(
    backend: str, new_registry: RegistryFactory, request: pytest.FixtureRequest
) -> str:
    """Return the URL of a registry of the module's own, of each kind in turn."""
    return new_registry(backend, request.module.__name__.rpartition(".")[2])


@pytest.fixture
def registry_url(database_url: str) -> str:
    """Return the URL of a database with Glance's tables and no image in them."""
    engine = sa.create_engine(database_url, poolclass=NullPool)
    with engine.begin() as connection:
        for table in IMAGE_TABLES:
            connection.execute(sa.text(f"DELETE FROM {table}"))
    engine.dispose()
    return database_url


@pytest.fixture(scope="module")
def glance(
    glance_python: str, new_registry: RegistryFactory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GlanceFactory]:
    """Return a function that starts a Glance; the module's end stops it.

    The function takes the fields of `GlanceConfig` but `directory` and `port` by name.
    Without `database_url`, which must have Glance's tables, it takes a SQLite file, and without
    `transport_url` a bus that nobody else sees.
    """
    with ExitStack() as stack:

        def start(**fields: Any) -> GlanceProcess:
            directory = tmp_path_factory.mktemp("glance")
            if "database_url" not in fields:
                fields["database_url"] = new_registry("sqlite", "glance")
            fields.setdefault("transport_url", "kombu+memory://")
            fields.setdefault("python", glance_python)
            config = GlanceConfig(directory=directory, port=free_port(), **fields)
            return stack.enter_context(GlanceProcess(config, has_tables=True, deadline=180))

        yield start


@pytest.fixture(scope="session")
def moto() -> Iterator[StoreServer]:
    """Return moto's S3."""
    with StoreServer("moto") as server:
        yield server


@pytest.fixture(scope="session")
def _swift() -> Iterator[StoreServer]:
    with StoreServer("swift") as server:
        server.make(f"/{BUCKET}")
        yield server


@pytest.fixture
def swift(_swift: StoreServer) -> Iterator[StoreServer]:
    """Return a Swift with a container."""
    yield _swift
    _swift.behave()


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLibraries]:
    """Let agents find the libraries of rbd and cinder."""
    directory = tmp_path / "libraries"
    directory.mkdir()
    libraries = FakeLibraries(tmp_path / "asked")
    monkeypatch.setenv("PYTHONPATH", store_servers.put_on_path(libraries, directory))
    yield libraries
    shutil.rmtree(directory)
