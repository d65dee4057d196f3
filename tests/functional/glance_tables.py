# SPDX-License-Identifier: Apache-2.0
"""Databases with Glance's tables: Glance's own code makes them once a run, then they are copied."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, ClassVar, Self

from evscrub.demo.glance_config import GlanceConfig, migrate, write_config
from tests.forking import GlancePython
from tests.servers import DatabaseServer, MariaDB, PostgreSQL
from tests.sharing import shared

if TYPE_CHECKING:
    from collections.abc import Mapping


def make_tables(database_url: str, python: str | None = None) -> None:
    """Make Glance's tables in an empty database.

    :param python: the interpreter that has the Glance; the tests' own by default.
    """
    python = python or str(shared(GlancePython).python)
    with TemporaryDirectory(prefix="evscrub-migrate-") as folder:
        config = GlanceConfig(Path(folder), 0, database_url, "kombu+memory://", python=python)
        write_config(config)
        migrate(config)


class Template(ABC):
    """A database to copy, which the whole run shares: a context manager."""

    @abstractmethod
    def __enter__(self) -> Self:
        """Make it."""

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Remove it, where its server does not."""

    @abstractmethod
    def copy(self, name: str, folder: Path) -> str:
        """Make a copy and return its SQLAlchemy URL.

        :param name: what the copy's name begins with.
        :param folder: where a database that is a file goes.
        """


class SQLiteTemplate(Template):
    """A file."""

    def __enter__(self) -> Self:
        self._folder = Path(mkdtemp(prefix="evscrub-tables-"))
        make_tables(f"sqlite:///{self._path}")
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder)

    def copy(self, name: str, folder: Path) -> str:
        path = folder / f"{name}.sqlite"
        shutil.copy(self._path, path)
        return f"sqlite:///{path}"

    @property
    def _path(self) -> Path:
        return self._folder / "template.sqlite"


class _ServersTemplate(Template):
    """A database on the run's server of a kind."""

    kind: ClassVar[type[DatabaseServer]]

    def __enter__(self) -> Self:
        self._url = shared(self.kind).new_database("template")
        make_tables(self._url)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def copy(self, name: str, folder: Path) -> str:
        return shared(self.kind).copy_database(self._url, name)


class MariaDBTemplate(_ServersTemplate):
    """A database on the run's MariaDB."""

    kind = MariaDB


class PostgreSQLTemplate(_ServersTemplate):
    """A database on the run's PostgreSQL."""

    kind = PostgreSQL


TEMPLATES: Mapping[str, type[Template]] = {
    "sqlite": SQLiteTemplate,
    "mariadb": MariaDBTemplate,
    "postgresql": PostgreSQLTemplate,
}
