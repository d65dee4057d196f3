# SPDX-License-Identifier: Apache-2.0
"""Fills a registry with deleted images by bulk SQL, in the form that Glance leaves them.

The database makes the rows itself, so that a million of them takes minutes. Ids are derived from
numbers, so that every database, and this process, know the same ones.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

#: Rows in one statement; a transaction of more would fill the database's log.
_CHUNK = 50_000
_DATA = b"image data"
_PROPERTIES = (("os_type", "linux"), ("hw_disk_bus", "virtio"), ("hw_vif_model", "virtio"))
_TABLES = ("image_locations", "image_members", "image_properties", "image_tags", "images")
OWNERS = 20


@dataclass(frozen=True)
class Batch:
    """Images of successive numbers, deleted one after another.

    :param first: the first one's number, at least 1.
    :param age_seconds: how long ago the last one was deleted; below 0 for the future.
    :param spread_seconds: how long before that the first one was.
    :param live: they were not deleted at all, but made at those times, and have no data.
    :param scheme: of their locations' URLs.
    """

    count: int
    first: int = 1
    age_seconds: float = 86_400.0
    spread_seconds: float = 0.0
    live: bool = False
    scheme: str = "file"

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.count)

    @property
    def ids(self) -> list[str]:
        return [image_id(number) for number in self.numbers]


def image_id(number: int) -> str:
    """Return the id of the image of that number."""
    return str(uuid.UUID(hashlib.md5(f"evscrub {number}".encode()).hexdigest()))


def owner(number: int) -> str:
    """Return the owner of the image of that number."""
    return hashlib.md5(f"owner {number % OWNERS}".encode()).hexdigest()


def empty(engine: sa.Engine) -> None:
    """Remove all images from the registry."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text(f"TRUNCATE {', '.join(_TABLES)} CASCADE"))
            return
        connection.execute(sa.text("SET FOREIGN_KEY_CHECKS = 0"))
        for table in _TABLES:
            connection.execute(sa.text(f"TRUNCATE {table}"))
        connection.execute(sa.text("SET FOREIGN_KEY_CHECKS = 1"))


def fill(engine: sa.Engine, batch: Batch, directory: Path) -> None:
    """Add images with their properties and locations to the registry.

    :param directory: where their data is; see :func:`write_files`.
    """
    # Once for all rows: what was deleted together has the same time.
    with engine.connect() as connection:
        clock = (
            "timezone('UTC', now())" if engine.dialect.name == "postgresql" else "UTC_TIMESTAMP()"
        )
        now = connection.exec_driver_sql(f"SELECT {clock}").scalar_one()
    for first in range(batch.first, batch.first + batch.count, _CHUNK):
        last = min(first + _CHUNK, batch.first + batch.count) - 1
        with engine.begin() as connection:
            for statement in _inserts(engine.dialect.name, first, last, batch, directory, now):
                connection.exec_driver_sql(statement)


def analyze(engine: sa.Engine) -> None:
    """Let the database count its rows, as it does by itself after a while."""
    tables = "images, image_locations, image_properties"
    verb = "ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE TABLE"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"{verb} {tables}")


def write_files(batch: Batch, directory: Path) -> None:
    """Write a file for each image, as a file store has it."""
    for name in batch.ids:
        (directory / name).write_bytes(_DATA)


def _inserts(
    dialect: str, first: int, last: int, batch: Batch, directory: Path, now: datetime
) -> Iterable[str]:
    text = "text" if dialect == "postgresql" else "char"
    number = f"CAST(n AS {text})"
    digest = f"md5(CONCAT('evscrub ', {number}))"
    parts = ", ".join(f"SUBSTR({digest}, {a}, {b})" for a, b in _UUID_PARTS)
    key = f"CONCAT_WS('-', {parts})"
    owner_sql = f"md5(CONCAT('owner ', CAST(MOD(n, {OWNERS}) AS {text})))"
    # The first image is deleted first.
    ago = f"{batch.age_seconds} + {batch.spread_seconds} * "
    ago += f"({batch.first + batch.count - 1} - n) / {max(1, batch.count - 1)}.0"
    if dialect == "postgresql":
        source = f"generate_series({first}, {last}) AS s(n)"
        moment = f"timestamp '{now}' - ({ago}) * interval '1 second'"
        true, false = "true", "false"
    else:
        source = f"(SELECT seq AS n FROM seq_{first}_to_{last}) AS s"
        moment = f"CAST('{now}' AS datetime) - INTERVAL ({ago}) SECOND"
        true, false = "1", "0"
    deleted, deleted_at, status = true, moment, "pending_delete"
    if batch.live:
        deleted, deleted_at, status = false, "NULL", "active"
    sha512 = hashlib.sha512(_DATA).hexdigest()
    yield (
        "INSERT INTO images (id, name, size, virtual_size, status, created_at, updated_at,"
        " deleted_at, deleted, disk_format, container_format, checksum, owner, min_disk, min_ram,"
        " protected, visibility, os_hidden, os_hash_algo, os_hash_value)"
        f" SELECT {key}, CONCAT('image ', {number}), {len(_DATA)}, {len(_DATA)}, '{status}',"
        f" {moment}, {moment}, {deleted_at}, {deleted}, 'raw', 'bare',"
        f" '{hashlib.md5(_DATA).hexdigest()}', {owner_sql}, 0, 0, {false}, 'shared', {false},"
        f" 'sha512', '{sha512}' FROM {source}"
    )
    for name, value in _PROPERTIES:
        yield (
            "INSERT INTO image_properties"
            " (image_id, name, value, created_at, updated_at, deleted_at, deleted)"
            f" SELECT {key}, '{name}', '{value}', {moment}, {moment}, {deleted_at}, {deleted}"
            f" FROM {source}"
        )
    yield (
        "INSERT INTO image_locations"
        " (image_id, value, created_at, updated_at, deleted_at, deleted, meta_data, status)"
        f" SELECT {key}, CONCAT('{batch.scheme}://{directory}/', {key}), {moment}, {moment},"
        f" {deleted_at}, {deleted}, '{{}}', '{status}' FROM {source}"
    )


_UUID_PARTS = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
