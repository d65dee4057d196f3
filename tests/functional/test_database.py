# SPDX-License-Identifier: Apache-2.0
"""Effects of real servers' errors on transactions and pooled connections."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from oslo_db import exception as db_exception

from evscrub.registry.database import Database, retried
from evscrub.registry.errors import Sort, is_read_only
from tests.functional.conftest import RegistryFactory
from tests.servers import DatabaseServer, MariaDB, PostgreSQL
from tests.unit.registry.test_database import configured
from tests.unit.registry.test_errors import MYSQL, OTHERS, POSTGRESQL


class Work:
    """A transaction that the server first aborts with an error."""

    def __init__(self, database: Database, connection_id: str, failing: str) -> None:
        self.connections: list[int] = []
        self._database = database
        self._connection_id = sa.text(f"SELECT {connection_id}")
        self._failing = failing

    @retried
    def run(self, failures: int) -> None:
        with self._database.transaction() as connection:
            self.connections.append(connection.execute(self._connection_id).scalar_one())
            if len(self.connections) <= failures:
                connection.exec_driver_sql(self._failing)


def check(work: Work, wanted: Sort) -> None:
    if wanted is Sort.OTHER:
        with pytest.raises((db_exception.DBError, sa.exc.SQLAlchemyError)):
            work.run(1)
        assert len(work.connections) == 1
        return
    work.run(2)
    assert len(work.connections) == 3
    # A connection that is of no more use is not taken again.
    assert len(set(work.connections)) == (1 if wanted is Sort.CONFLICT else 3)


def database_of(server: DatabaseServer, tmp_path: Path, family: str | None = None) -> Database:
    url = server.database_url(server.first_database)
    return Database(configured(tmp_path, url.replace("mysql+", f"{family}+") if family else url))


# A signal has 16 bits, and these numbers are the client's own.
SIGNALED = [number for number in (*MYSQL, *OTHERS) if not 2000 <= number < 3000]


@pytest.mark.parametrize("number", SIGNALED)
def test_mysql_errors_are_retried(mariadb: MariaDB, tmp_path: Path, number: int) -> None:
    database = database_of(mariadb, tmp_path)
    failing = f"BEGIN NOT ATOMIC SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}; END"
    check(Work(database, "CONNECTION_ID()", failing), MYSQL.get(number, Sort.OTHER))
    database.dispose()


@pytest.mark.parametrize("state", [*POSTGRESQL, "23505"])
def test_postgresql_errors_are_retried(postgresql: PostgreSQL, tmp_path: Path, state: str) -> None:
    database = database_of(postgresql, tmp_path)
    failing = f"DO $$ BEGIN RAISE EXCEPTION 'words' USING ERRCODE = '{state}'; END $$"
    check(Work(database, "pg_backend_pid()", failing), POSTGRESQL.get(state, Sort.OTHER))
    database.dispose()


@pytest.mark.parametrize("family", ["mysql", "mariadb"])
def test_deadlocks_are_retried_with_every_driver_name(
    mariadb: MariaDB, tmp_path: Path, family: str
) -> None:
    database = database_of(mariadb, tmp_path, family)
    with database.reading() as connection:
        level = connection.exec_driver_sql("SELECT @@tx_isolation").scalar_one()
    assert level == "READ-COMMITTED"
    failing = "BEGIN NOT ATOMIC SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213; END"
    check(Work(database, "CONNECTION_ID()", failing), Sort.CONFLICT)
    database.dispose()


@pytest.mark.parametrize(
    ("statement", "ends"),
    [
        ("SELECT SLEEP(60)", "Lost connection"),
        ("SELECT pg_sleep(60)", "did not answer within 5 s"),
    ],
    ids=["mariadb", "postgresql"],
)
def test_slow_statement_is_aborted(
    statement: str,
    ends: str,
    tmp_path: Path,
    mariadb: MariaDB,
    postgresql: PostgreSQL,
) -> None:
    server: DatabaseServer = postgresql if "pg_" in statement else mariadb
    url = server.database_url(server.first_database)
    database = Database(configured(tmp_path, url), answer_seconds=5)
    ask: Callable[[], object] = database.now
    ask()
    with (
        pytest.raises(db_exception.DBConnectionError, match=ends),
        database.reading() as connection,
    ):
        connection.exec_driver_sql(statement)
    ask()
    database.dispose()


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("mariadb", "init_command=SET SESSION TRANSACTION READ ONLY"),
        ("postgresql", "options=-c default_transaction_read_only=on"),
    ],
)
def test_read_only_server_rejects_an_update_of_no_row(
    kind: str, option: str, tmp_path: Path, new_registry: RegistryFactory
) -> None:
    url = new_registry(kind, "read_only")
    writable = Database(configured(tmp_path, url))
    writable.try_to_write()
    writable.dispose()
    database = Database(configured(tmp_path, f"{url}?{option}"))
    database.now()
    with pytest.raises(db_exception.DBConnectionError) as refused:
        database.try_to_write()
    assert is_read_only(refused.value)
    database.dispose()
