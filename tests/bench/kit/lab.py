# SPDX-License-Identifier: Apache-2.0
"""The servers of a run and the Glance sites on them; each starts when it is first asked for."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Self

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from evscrub.demo.glance_config import GlanceConfig, migrate, write_config
from tests.bench.kit import seed
from tests.bench.kit.processes import cpu_seconds
from tests.servers import DatabaseServer, MariaDB, PostgreSQL, RabbitMQ, free_port

DATABASES = ("mariadb", "postgresql")
_SERVERS: dict[str, type[DatabaseServer]] = {"mariadb": MariaDB, "postgresql": PostgreSQL}
_READY_SECONDS = 120.0
_POOL_BYTES = 3 << 30
_REST_SECONDS = 120.0
_REST_STEP_SECONDS = 3.0
#: Of one processor.
_REST_SHARE = 0.03

#: Of configuration files, by group and name.
Options = Mapping[str, Mapping[str, object]]


class Site:
    """A Glance's configuration, registry and file store; its API does not run.

    :param database: the server that has the registry.
    :param bus: transport URL.
    """

    def __init__(self, directory: Path, database: DatabaseServer, bus: str) -> None:
        self.directory = directory
        self.database = database
        self.glance = GlanceConfig(
            directory / "glance",
            free_port(),
            database.new_database("glance"),
            bus,
            extra={"DEFAULT": {"log_file": str(directory / "glance.log")}},
        )
        self.engine = sa.create_engine(self.glance.database_url, poolclass=NullPool)
        write_config(self.glance)
        migrate(self.glance)

    @property
    def data(self) -> Path:
        """The file store's folder."""
        return self.glance.data_directory()

    @property
    def servers(self) -> list[int]:
        """The process ids of what counts as the registry's server."""
        return [] if self.database.pid is None else [self.database.pid]

    def lay(self, *batches: seed.Batch, files: bool = True) -> None:
        """Make these images all that there is."""
        for left in self.data.iterdir():
            left.unlink()
        seed.empty(self.engine)
        self.add(*batches, files=files)

    def add(self, *batches: seed.Batch, files: bool = True) -> None:
        """Make these images as well, whose numbers no image has had."""
        for batch in batches:
            seed.fill(self.engine, batch, self.data)
            if files and not batch.live:
                seed.write_files(batch, self.data)
        seed.analyze(self.engine)

    def wait_for_rest(self) -> None:
        """Wait, for two minutes at most, until the server has nothing left to do of a large fill.

        It flushes and vacuums in the background, which takes processors from what is measured.
        """
        for _ in range(round(_REST_SECONDS / _REST_STEP_SECONDS)):
            before = sum(map(cpu_seconds, self.servers))
            time.sleep(_REST_STEP_SECONDS)
            if sum(map(cpu_seconds, self.servers)) - before < _REST_SHARE * _REST_STEP_SECONDS:
                return

    def expect_many(self) -> None:
        """Give the database memory for millions of images.

        The servers of tests are given little, and indexes that do not fit take a quarter-hour.
        """
        if self.engine.dialect.name != "postgresql":
            with self.engine.connect() as connection:
                connection.exec_driver_sql(f"SET GLOBAL innodb_buffer_pool_size = {_POOL_BYTES}")

    def pending(self) -> int:
        """How many images are still pending, or claimed and not finished."""
        query = sa.text("SELECT count(*) FROM image_locations WHERE status = 'pending_delete'")
        with self.engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def agent_config(self, options: Options) -> Path:
        """Write evscrub's configuration beside this Glance's."""
        groups = {group: dict(values) for group, values in options.items()}
        defaults = groups.setdefault("DEFAULT", {})
        defaults["glance_config_files"] = self.glance.directory / "glance-api.conf"
        # Not the default, which an agent of this host may have.
        groups.setdefault("status", {})["listen"] = "127.0.0.1:0"
        lines = []
        for group, values in groups.items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in values.items())]
        path = self.directory / "evscrub.conf"
        path.write_text("\n".join(lines) + "\n")
        return path

    def scrubber_config(self, **options: object) -> Path:
        """Write what glance-scrubber reads after glance-api.conf."""
        lines = ["[DEFAULT]", *(f"{name} = {value}" for name, value in options.items())]
        path = self.directory / "glance-scrubber.conf"
        path.write_text("\n".join(lines) + "\n")
        return path


class Lab:
    """All that benchmarks run on: a context manager.

    :param databases: the databases to measure on, of :data:`DATABASES`.
    """

    def __init__(self, databases: tuple[str, ...] = DATABASES) -> None:
        self.databases = databases
        self._stack = ExitStack()
        self._sites: dict[str, Site] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def directory(self) -> Path:
        """A folder that goes away with the lab."""
        folder = tempfile.TemporaryDirectory(prefix="evscrub-bench-", ignore_cleanup_errors=True)
        return Path(self._stack.enter_context(folder))

    @cached_property
    def rabbitmq(self) -> RabbitMQ:
        return self._stack.enter_context(RabbitMQ(deadline=_READY_SECONDS))

    def site(self, database: str) -> Site:
        """Return the site on that database."""
        if database not in self._sites:
            server = self._stack.enter_context(_SERVERS[database](deadline=_READY_SECONDS))
            directory = self.directory / database
            directory.mkdir()
            self._sites[database] = Site(directory, server, self.rabbitmq.url)
        return self._sites[database]
