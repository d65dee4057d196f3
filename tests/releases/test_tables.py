# SPDX-License-Identifier: Apache-2.0
"""Glance's tables: the columns and indexes that evscrub's statements are written for."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from evscrub.registry.tables import metadata

#: What finding pending images and removed locations without reading whole tables takes.
INDEXED = {"images": {"deleted", "updated_at"}, "image_locations": {"deleted", "image_id"}}


@pytest.fixture
def inspector(registry_url: str) -> Iterator[sa.Inspector]:
    """Return what looks into the database that Glance has migrated."""
    engine = sa.create_engine(registry_url, poolclass=NullPool)
    yield sa.inspect(engine)
    engine.dispose()


def test_tables_have_the_columns(inspector: sa.Inspector) -> None:
    for name, table in metadata.tables.items():
        there = {column["name"] for column in inspector.get_columns(name)}
        assert set(table.columns.keys()) <= there, name


def test_tables_have_the_indexes(inspector: sa.Inspector) -> None:
    for name, columns in INDEXED.items():
        there = {index["column_names"][0] for index in inspector.get_indexes(name)}
        assert columns <= there, name
