# SPDX-License-Identifier: Apache-2.0
"""What is said about a database that cannot be configured."""

from pathlib import Path

import pytest
from oslo_config import cfg

from evscrub.registry.database import UNAVAILABLE, Database


def configured(tmp_path: Path, connection: str) -> cfg.ConfigOpts:
    path = tmp_path / "evscrub.conf"
    path.write_text(f"[database]\nconnection = {connection}\n", encoding="utf-8")
    conf = cfg.ConfigOpts()
    conf([], project="evscrub", default_config_files=[str(path)], default_config_dirs=[])
    return conf


@pytest.mark.parametrize(
    ("connection", "words"),
    [
        ("", "is not set"),
        ("no-url-with-secret", "not a URL"),
        ("mysql+pymysql://glance:p@ss:secret@host/glance", "not a URL"),
        ("mysql+pymysql://glance:secret", "not a URL"),
        ("oracle9i://user:secret@host/glance", "does not support"),
        ("mysql+nodriver://user:secret@host/glance", "does not support"),
        ("mysql+mysqldb://user:secret@host/glance", "Python module MySQLdb"),
        ("mysql://user:secret@host/glance", "use a URL that begins with mysql+pymysql://"),
        ("mariadb+asyncmy://user:secret@host/glance", "begins with mariadb+asyncmy://"),
        *(
            (f"{name}://user:secret@host/glance", "mysql+pymysql://, postgresql+psycopg2:// or")
            for name in (
                "oracle+oracledb",
                "postgres",
                "Mysql+PyMySQL",
                "mariadb+asyncmy",
                "mysql+aiomysql",
                "mysql+cymysql",
                "mysql+pyodbc",
                "mariadb+mariadbconnector",
                "postgresql+asyncpg",
                "postgresql+pg8000",
                "postgresql+psycopg_async",
                "sqlite+aiosqlite",
            )
        ),
    ],
)
def test_wrong_connection_is_reported_without_its_password(
    tmp_path: Path, connection: str, words: str
) -> None:
    with pytest.raises(ValueError, match=r"\[database\] connection") as caught:
        Database(configured(tmp_path, connection))
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_agent_starts_without_its_database(tmp_path: Path) -> None:
    database = Database(configured(tmp_path, f"sqlite:///{tmp_path}/nowhere/glance.sqlite"))
    with pytest.raises(UNAVAILABLE), database.reading():
        pass
    database.dispose()
