# SPDX-License-Identifier: Apache-2.0
"""The columns of Glance's tables that evscrub reads or writes, and the database's clock."""

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


#: A location's URL and metadata are read up to so many bytes, or characters on PostgreSQL; drivers'
#: names have a tenth of that. Hundreds of images with ten locations each are read at a time, and
#: some databases keep texts of any length.
LONGEST_TEXT = 16 << 10


def bounded(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """Select a text, or an empty one in place of one longer than :data:`LONGEST_TEXT`."""
    return sa.case((sa.func.length(column) > LONGEST_TEXT, ""), else_=column).label(column.name)


def _child(name: str, *columns: sa.Column[Any]) -> sa.Table:
    """A table of what belongs to images and is deleted with them."""
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
    "image_properties", sa.Column("name", sa.String(255)), sa.Column("value", sa.Text)
)
image_tags = _child("image_tags")
image_members = _child("image_members")


class utc_now(FunctionElement[sa.DateTime]):  # noqa: N801 - named as the SQL function it is
    """The database's own clock as a naive UTC time, with fractions of a second."""

    type = sa.DateTime()  # type: ignore[assignment] # as SQLAlchemy documents it
    inherit_cache = True


@compiles(utc_now)
def _standard(_element: utc_now, compiler: SQLCompiler, **_kw: object) -> str:
    raise NotImplementedError(f"evscrub does not know the clock of {compiler.dialect.name}")


@compiles(utc_now, "mysql")
@compiles(utc_now, "mariadb")
def _mysql(_element: utc_now, _compiler: SQLCompiler, **_kw: object) -> str:
    return "UTC_TIMESTAMP(6)"


@compiles(utc_now, "postgresql")
def _postgresql(_element: utc_now, _compiler: SQLCompiler, **_kw: object) -> str:
    # Not now(): that is when the transaction began, before it waited for any lock.
    return "timezone('UTC', clock_timestamp())"


@compiles(utc_now, "sqlite")
def _sqlite(_element: utc_now, _compiler: SQLCompiler, **_kw: object) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
