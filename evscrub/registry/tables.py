# SPDX-License-Identifier: Apache-2.0
"""Declare the columns of Glance's tables that evscrub uses, and the database's clock in SQL."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

metadata = sa.MetaData()

images = sa.Table(
    "images",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(255)),
    sa.Column("owner", sa.String(255)),
    sa.Column("size", sa.BigInteger),
    sa.Column("status", sa.String(30)),
    sa.Column("deleted", sa.Boolean),
    sa.Column("deleted_at", sa.DateTime),
    sa.Column("created_at", sa.DateTime),
    sa.Column("updated_at", sa.DateTime),
)

image_locations = sa.Table(
    "image_locations",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("image_id", sa.String(36)),
    sa.Column("value", sa.Text),
    sa.Column("meta_data", sa.Text),  # JSON, which Glance encodes itself
    sa.Column("status", sa.String(30)),
    sa.Column("deleted", sa.Boolean),
    sa.Column("deleted_at", sa.DateTime),
    sa.Column("created_at", sa.DateTime),
    sa.Column("updated_at", sa.DateTime),
)


#: Longest URL or metadata of a location that is read, in bytes, or in characters on PostgreSQL. The
#: URLs of drivers are at most a tenth of it. The limit bounds memory: some databases store texts of
#: any length, and thousands of locations are read at once.
LONGEST_TEXT = 16 << 10


def bounded(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """Return an expression for a text column, empty if it is longer than :data:`LONGEST_TEXT`."""
    return sa.case((sa.func.length(column) > LONGEST_TEXT, ""), else_=column).label(column.name)


def _child(name: str, *columns: sa.Column[Any]) -> sa.Table:
    """Return a table whose rows belong to images and are deleted with them."""
    return sa.Table(
        name,
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("image_id", sa.String(36)),
        sa.Column("deleted", sa.Boolean),
        sa.Column("deleted_at", sa.DateTime),
        *columns,
    )


image_properties = _child(
    "image_properties",
    sa.Column("name", sa.String(255)),
    sa.Column("value", sa.Text),
    sa.Column("created_at", sa.DateTime),
    sa.Column("updated_at", sa.DateTime),
)
image_tags = _child("image_tags", sa.Column("value", sa.String(255)))
image_members = _child("image_members", sa.Column("member", sa.String(255)))


class utc_now(FunctionElement[sa.DateTime]):  # noqa: N801 - named as the SQL function it is
    """The database's current time, naive UTC, with fractions of a second."""

    type = sa.DateTime()  # type: ignore[assignment] # as SQLAlchemy documents it
    inherit_cache = True


@compiles(utc_now)
def _standard(_element: utc_now, compiler: SQLCompiler, **_kw: object) -> str:
    raise NotImplementedError(f"evscrub cannot read the clock of {compiler.dialect.name}")


@compiles(utc_now, "mysql")
@compiles(utc_now, "mariadb")
def _mysql(_element: utc_now, _compiler: SQLCompiler, **_kw: object) -> str:
    return "UTC_TIMESTAMP(6)"


@compiles(utc_now, "postgresql")
def _postgresql(_element: utc_now, _compiler: SQLCompiler, **_kw: object) -> str:
    # Not now(), which is the start of the transaction, before it waited for locks.
    return "timezone('UTC', clock_timestamp())"


@compiles(utc_now, "sqlite")
def _sqlite(_element: utc_now, _compiler: SQLCompiler, **_kw: object) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
