# SPDX-License-Identifier: Apache-2.0
"""Every spelling of a database's URL is one of a known family, and gets time-outs."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from evscrub.registry import connecting, database, watchdog
from evscrub.registry.database import Database
from tests.unit.registry.test_database import configured

MYSQL = ["pymysql", "mysqldb", "mysqlconnector"]
TIMES = {"connect_timeout": 10, "read_timeout": 7, "write_timeout": 7}


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for drivers that are not installed, as far as engines look at them."""
    # Its authors mean it to be taken for MySQLdb.
    monkeypatch.setitem(sys.modules, "MySQLdb", pymysql)
    mysql, connector = ModuleType("mysql"), ModuleType("mysql.connector")
    mysql.connector = connector  # type: ignore[attr-defined] # made here
    connector.__version__ = "9.2.0"  # type: ignore[attr-defined] # made here
    connector.paramstyle = "pyformat"  # type: ignore[attr-defined] # made here
    connector.constants = SimpleNamespace(  # type: ignore[attr-defined] # made here
        ClientFlag=SimpleNamespace(get_default=lambda: 0, FOUND_ROWS=2)
    )
    monkeypatch.setitem(sys.modules, "mysql", mysql)
    monkeypatch.setitem(sys.modules, "mysql.connector", connector)
    monkeypatch.setitem(sys.modules, "mysql.connector.constants", connector.constants)


def options_of(engine: sa.Engine) -> dict[str, Any]:
    """Return what an engine connects with."""
    arguments, options = engine.dialect.create_connect_args(engine.url)
    for connect in engine.dialect.dispatch.do_connect:
        connect(engine.dialect, None, arguments, options)
    return dict(options)


@pytest.mark.usefixtures("drivers")
@pytest.mark.parametrize("driver", ["", *(f"+{name}" for name in MYSQL)])
@pytest.mark.parametrize("family", ["mysql", "mariadb"])
class TestMySQL:
    def test_mysql_session_is_read_committed_with_timeouts(
        self, family: str, driver: str, tmp_path: Path
    ) -> None:
        made = Database(configured(tmp_path, f"{family}{driver}://u:p@h/glance"), answer_seconds=7)
        # By this name oslo.db and evscrub look for it.
        assert made.engine.dialect.name == "mysql"
        assert database._read_committed in list(made.engine.pool.dispatch.connect)
        wanted = dict(TIMES)
        if driver == "+mysqlconnector":
            wanted["connection_timeout"] = wanted.pop("connect_timeout")
        options = options_of(made.engine)
        assert {name: options[name] for name in wanted} == wanted

    def test_timeouts_in_the_url_are_kept(self, family: str, driver: str, tmp_path: Path) -> None:
        own = "connect_timeout=3&read_timeout=99&write_timeout=98"
        made = Database(configured(tmp_path, f"{family}{driver}://u:p@h/glance?{own}"))
        options = options_of(made.engine)
        values = {name: int(options[name]) for name in TIMES}
        assert values == {"connect_timeout": 3, "read_timeout": 99, "write_timeout": 98}
        assert "connection_timeout" not in options


@pytest.mark.parametrize(("own", "wanted"), [("", 10), ("?connect_timeout=3", 3)])
def test_postgresql_has_timeouts(
    own: str, wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def connect(seconds: float, *_arguments: Any, **options: Any) -> object:
        told.update(options, seconds=seconds)
        return object()

    driver = connecting.Driver(("connect_timeout",), watched=connect)
    monkeypatch.setitem(connecting._DRIVERS, ("postgresql", "psycopg2"), driver)
    made = Database(configured(tmp_path, f"postgresql+psycopg2://u:p@h/g{own}"), answer_seconds=7)
    options_of(made.engine)
    assert told["seconds"] == 7
    assert int(told["connect_timeout"]) == wanted


@pytest.mark.parametrize(
    ("url", "watched"),
    [
        ("postgresql://h/g", watchdog.connect_psycopg2),
        ("postgresql+psycopg2://h/g", watchdog.connect_psycopg2),
        ("postgresql+psycopg://h/g", watchdog.connect_psycopg),
        ("sqlite:///g", None),
        ("sqlite+pysqlite:///g", None),
    ],
)
def test_other_spellings_are_known(url: str, watched: object) -> None:
    assert connecting.driver_of(connecting.read_url(url)).watched is watched


def test_connection_parameters_are_used(tmp_path: Path) -> None:
    conf = configured(tmp_path, "mysql+pymysql://u:p@h/glance")
    Database(conf)
    conf.set_override("connection_parameters", "read_timeout=300", "database")
    options = options_of(Database(conf).engine)
    assert (int(options["read_timeout"]), options["write_timeout"]) == (300, 60)


@given(st.floats(10, 1e6))
def test_a_statement_ends_before_a_lease(lease_seconds: float) -> None:
    seconds = connecting.answer_seconds(lease_seconds)
    assert 5 <= seconds <= 60
    assert seconds <= lease_seconds / 2
