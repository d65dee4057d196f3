# SPDX-License-Identifier: Apache-2.0
"""What errors of databases mean, told by the real drivers' own exceptions."""

import sqlite3
import struct
from pathlib import Path
from types import SimpleNamespace

import psycopg2
import psycopg2.errors
import pymysql
import pytest
import sqlalchemy as sa
from oslo_db import exception as db_exception

from evscrub.registry import database, errors
from evscrub.registry.errors import Sort, advice, reason, sort

SECRET = "mysql://glance:secret@host"
MYSQL = dict.fromkeys(
    (1020, 1180, 1205, 1213, 1317, 1412, 1637, 3101), Sort.CONFLICT
) | dict.fromkeys(
    (
        *(1040, 1047, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1226, 1290, 1792, 1836, 1927),
        *(2002, 2003, 2006, 2013, 3024, 3032, 3100, 3168, 3169, 4031, 9001),
    ),
    Sort.LOST,
)
OTHERS = (1045, 1049, 1054, 1062, 1064, 1142, 1146, 1406)
POSTGRESQL = dict.fromkeys(
    ("40001", "40003", "40P01", "55P03", "57014"), Sort.CONFLICT
) | dict.fromkeys(
    ("08000", "08003", "08006", "25006", "25P03", "53300", "57P01", "57P02", "57P03"), Sort.LOST
)


def mysql(number: int, text: str = "words") -> BaseException:
    """Return what PyMySQL raises for a server's answer."""
    with pytest.raises(pymysql.err.MySQLError) as caught:
        pymysql.err.raise_mysql_exception(
            b"\xff" + struct.pack("<H", number) + b"#HY000" + text.encode()
        )
    error: BaseException = caught.value
    return error


def postgresql(state: str) -> BaseException:
    """Return what psycopg2 raises for a state."""
    error: BaseException = psycopg2.errors.lookup(state)("words")
    error.__setstate__({"pgcode": state, "pgerror": "words"})
    return error


@pytest.mark.parametrize(("number", "wanted"), [*MYSQL.items(), *((n, Sort.OTHER) for n in OTHERS)])
def test_mysql(number: int, wanted: Sort) -> None:
    assert sort(mysql(number), "mysql") is wanted
    # As SQLAlchemy and oslo.db wrap it.
    assert sort(db_exception.DBError(mysql(number)), "mysql") is wanted


@pytest.mark.parametrize(
    ("state", "wanted"), [*POSTGRESQL.items(), ("42P01", Sort.OTHER), ("23505", Sort.OTHER)]
)
def test_postgresql(state: str, wanted: Sort) -> None:
    assert sort(postgresql(state), "postgresql") is wanted


def test_an_error_of_libpqs_own_is_a_lost_connection() -> None:
    with pytest.raises(psycopg2.OperationalError) as caught:
        psycopg2.connect("host=127.0.0.1 port=1 connect_timeout=5")
    assert sort(caught.value, "postgresql") is Sort.LOST
    # One of the program's is not.
    assert sort(psycopg2.ProgrammingError("words"), "postgresql") is Sort.OTHER


def test_a_sqlite_that_is_locked(tmp_path: Path) -> None:
    first = sqlite3.connect(tmp_path / "x", isolation_level=None)
    second = sqlite3.connect(tmp_path / "x", timeout=0, isolation_level=None)
    try:
        first.execute("CREATE TABLE t (x)")
        first.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError) as caught:
            second.execute("BEGIN IMMEDIATE")
        assert sort(caught.value, "sqlite") is Sort.CONFLICT
        first.execute("ROLLBACK")
        with pytest.raises(sqlite3.OperationalError) as caught:
            second.execute("SELECT * FROM missing")
        assert sort(caught.value, "sqlite") is Sort.OTHER
        assert "created its tables" in advice(caught.value)
    finally:
        first.close()
        second.close()


class ConnectorError(Exception):
    """As mysqlconnector's: its number is an attribute."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{number} (HY000): words")
        self.errno = number
        self.sqlstate = "HY000"


def test_the_number_of_mysqlconnector() -> None:
    assert sort(ConnectorError(1180), "mysql") is Sort.CONFLICT
    assert sort(ConnectorError(-1), "mysql") is Sort.OTHER


@pytest.mark.parametrize(
    ("error", "is_disconnect", "is_lost"),
    [
        (mysql(2013, "Lost connection"), True, True),
        (mysql(1142, "denied for table `checked_82002a37`.`images`"), False, False),
        (mysql(1927, "Connection was killed"), True, True),
        # PyMySQL's own error about a connection that is out of step has no number.
        (pymysql.err.InternalError("Packet sequence number wrong - got 1 expected 2"), False, True),
    ],
)
def test_oslo_db_tells_a_lost_connection_unless_the_code_denies_it(
    error: pymysql.err.MySQLError, is_disconnect: bool, is_lost: bool
) -> None:
    context = SimpleNamespace(
        original_exception=error,
        sqlalchemy_exception=sa.exc.DBAPIError.instance("", {}, error, pymysql.err.Error),
        dialect=SimpleNamespace(name="mysql"),
        connection=None,
        is_disconnect=is_disconnect,
    )
    told = database._translate(context)  # type: ignore[arg-type] # a stand-in
    assert isinstance(told, db_exception.DBError)
    assert isinstance(told, db_exception.DBConnectionError) is is_lost
    assert context.is_disconnect is is_lost


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            mysql(1047, "WSREP has not yet prepared node for application use"),
            "no quorum in its cluster",
        ),
        (mysql(3100), "no quorum in its cluster"),
        (mysql(1290), "read-only"),
        (mysql(1792), "read-only"),
        (postgresql("25006"), "read-only"),
        (mysql(1146), "created its tables"),
        (postgresql("42P01"), "created its tables"),
        (mysql(1044), "the database's name"),
        (mysql(1045), "the user, the password"),
        (postgresql("28P01"), "the user, the password"),
        (mysql(2013), "check that the database runs"),
    ],
)
def test_advice_goes_by_the_code(error: BaseException, words: str) -> None:
    assert words in advice(error)
    # Tables are spoken of only where they are missing.
    assert ("tables" in advice(error)) == ("tables" in words)


def test_a_reason_is_one_line_without_credentials() -> None:
    said = reason(db_exception.DBError(mysql(1064, f"near\n'{SECRET}/x'")))
    assert "secret" not in said
    assert "\n" not in said
    assert "1064" in said
    assert errors.explain(ValueError()).startswith("ValueError; ")
