# SPDX-License-Identifier: Apache-2.0
"""Real MariaDB and PostgreSQL servers."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from tests.servers.base import Server, is_open

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

USER = "evscrub"
PASSWORD = "secret"


class DatabaseServer(Server):
    """A database server.

    :param durable: whether a commit reaches the disk; without, it is faster.
    :param deadline: seconds to wait until it is ready.
    """

    driver: ClassVar[str]
    first_database: ClassVar[str]

    def __init__(self, *, durable: bool = False, deadline: float = 180.0) -> None:
        super().__init__(deadline=deadline)
        self.durable = durable

    @property
    def nodes(self) -> Sequence[DatabaseServer]:
        """The servers that hold the same databases: this one alone."""
        return [self]

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the server's first database, for an administrator."""
        return self.database_url(self.first_database)

    def new_database(self, name: str) -> str:
        """Create an empty database of a name that is made up.

        :param name: what its name begins with: lower case letters, digits and underscores.
        :returns: its SQLAlchemy URL.
        """
        return self.create_database(f"{name}_{secrets.token_hex(4)}")

    def create_database(self, name: str) -> str:
        """Create an empty database of a name that no other has.

        :param name: lower case letters, digits and underscores.
        :returns: its SQLAlchemy URL.
        """
        self._execute(f"CREATE DATABASE {name}")
        return self.database_url(name)

    @abstractmethod
    def copy_database(self, url: str, name: str) -> str:
        """Copy a database that nobody is connected to.

        :param url: the SQLAlchemy URL of the one to copy.
        :param name: what the copy's name begins with.
        :returns: the copy's SQLAlchemy URL.
        """

    def database_url(self, name: str, *, port: int | None = None) -> str:
        """Return the SQLAlchemy URL of a database.

        :param name: the database's name.
        :param port: of a proxy to go through.
        """
        return f"{self.driver}://{USER}:{PASSWORD}@127.0.0.1:{port or self.port}/{name}"

    def _execute(self, statement: str) -> Sequence[Sequence[Any]]:
        engine = sa.create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                result = connection.execute(sa.text(statement))
                return result.all() if result.returns_rows else ()
        finally:
            engine.dispose()

    def _ready(self) -> bool:
        if not is_open(self.port):
            return False
        try:
            self._execute("SELECT 1")
        except SQLAlchemyError:
            return False
        return True


class MariaDB(DatabaseServer):
    """A MariaDB."""

    package = "mariadb-server"
    driver = "mysql+pymysql"
    first_database = "mysql"

    def _environment(self) -> Mapping[str, str]:
        # A server that starts removes the temporary tables of others from a folder that they share,
        # and the caller's may be for root alone.
        return os.environ | {"TMPDIR": str(self.directory)}

    def _prepare(self) -> None:
        init = [self._program("mariadb-install-db"), "--no-defaults", "--skip-test-db"]
        init += [f"--datadir={self.directory}/data", "--auth-root-authentication-method=normal"]
        self._run(init + self._as_root())
        (self.directory / "init.sql").write_text(
            f"CREATE OR REPLACE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO {USER}@'%';\n"
        )

    def _command(self) -> Sequence[str]:
        here = self.directory
        command = [self._program("mariadbd"), "--no-defaults", f"--datadir={here}/data"]
        command += ["--bind-address=127.0.0.1", f"--port={self.port}", f"--tmpdir={here}"]
        command += [f"--socket={here}/socket", f"--pid-file={here}/pid", "--skip-name-resolve"]
        command += [f"--init-file={here}/init.sql", "--innodb-buffer-pool-size=128M"]
        command += ["--max-connections=300", "--innodb-lock-wait-timeout=10"]
        if not self.durable:
            command += ["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync"]
        return command + self._as_root()

    def copy_database(self, url: str, name: str) -> str:
        copy = self.new_database(name)
        login = ["--no-defaults", f"--socket={self.directory}/socket", "--user=root"]
        source, target = (one.rpartition("/")[2] for one in (url, copy))
        dump = subprocess.run(
            [self._program("mariadb-dump"), *login, source], capture_output=True, check=True
        )
        subprocess.run([self._program("mariadb"), *login, target], input=dump.stdout, check=True)
        return copy

    def _as_root(self) -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 and self._account() is None else []


class PostgreSQL(DatabaseServer):
    """A PostgreSQL; for root, which it refuses, it runs as the package's `postgres`."""

    package = "postgresql"
    driver = "postgresql+psycopg2"
    first_database = "postgres"
    stop_signal = signal.SIGINT  # fast: SIGTERM would wait for the clients to leave
    kill_signal = signal.SIGQUIT  # as a crash: SIGKILL would leave its children behind

    def _account(self) -> str | None:
        return "postgres" if os.geteuid() == 0 else None

    def copy_database(self, url: str, name: str) -> str:
        name = f"{name}_{secrets.token_hex(4)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {url.rpartition('/')[2]}")
        return self.database_url(name)

    def _prepare(self) -> None:
        if account := self._account():
            shutil.chown(self.directory, account)
        init = [self._postgres("initdb"), "-D", f"{self.directory}/data", "--auth=trust"]
        init += [f"--username={USER}", "--no-sync", "--locale=C.UTF-8", "--encoding=UTF8"]
        self._run(init)

    def _command(self) -> Sequence[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "300",
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        command = [self._postgres("postgres"), "-D", f"{self.directory}/data"]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _postgres(self, name: str) -> str:
        return self._program(name, "/usr/lib/postgresql/*/bin")
