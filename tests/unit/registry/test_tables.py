# SPDX-License-Identifier: Apache-2.0
"""The database's clock, in each database's own words."""

import pytest
import sqlalchemy as sa

from evscrub.registry.tables import utc_now


def compiled(url: str) -> str:
    """How a database is asked for its clock."""
    dialect = sa.create_mock_engine(url, lambda *_: None).dialect
    return str(sa.select(utc_now()).compile(dialect=dialect))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql+pymysql://", "UTC_TIMESTAMP(6)"),
        ("mariadb+pymysql://", "UTC_TIMESTAMP(6)"),
        ("postgresql+psycopg2://", "timezone('UTC', clock_timestamp())"),
        ("sqlite://", "strftime('%Y-%m-%d %H:%M:%f000', 'now')"),
    ],
)
def test_the_clock_of_a_database_that_is_known(url: str, words: str) -> None:
    assert words in compiled(url)


def test_clock_of_an_unknown_database_is_an_error() -> None:
    with pytest.raises(NotImplementedError, match="mssql"):
        compiled("mssql+pyodbc://")
