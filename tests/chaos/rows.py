# SPDX-License-Identifier: Apache-2.0
"""Writes Glance's tables by SQL, in the form that Glance itself leaves.

What a test needs many of, or needs in the middle of something, is written here; test_glance_facts
holds the form against a real Glance.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import options as db_options

from evscrub.registry.database import Database

#: Tables of what belongs to an image and goes with it.
CHILDREN = ("image_properties", "image_tags", "image_members")
#: Each before those that it refers to.
TABLES = ("image_locations", *CHILDREN, "images")


def new_id() -> str:
    """Return an id for an image."""
    return str(uuid.uuid4())


def utc_now() -> datetime:
    """Return this host's time as Glance's API writes it."""
    return datetime.now(UTC).replace(tzinfo=None)


def connect(url: str) -> Database:
    """Connect with a registry as evscrub does.

    :param url: SQLAlchemy URL of a database that Glance has migrated.
    """
    conf = cfg.ConfigOpts()
    conf([], project="evscrub-tests", default_config_files=[])
    conf.register_opts(db_options.database_opts, "database")
    conf.set_override("connection", url, "database")
    return Database(conf)


class Rows:
    """Glance's image tables of one database.

    :param url: SQLAlchemy URL of a database that Glance has migrated.
    """

    def __init__(self, url: str) -> None:
        # More than those that use it at once: what is beyond is connected again for each use.
        self.engine = sa.create_engine(url, pool_pre_ping=True, pool_size=16)
        if self.engine.dialect.name == "sqlite":
            # What a power cut would leave is nobody's concern here.
            sa.event.listen(
                self.engine, "connect", lambda made, _: made.execute("PRAGMA synchronous = OFF")
            )
        metadata = sa.MetaData()
        metadata.reflect(self.engine, only=TABLES)
        self._tables = metadata.tables

    def add(
        self,
        *locations: tuple[str, str],
        image_id: str | None = None,
        owner: str = "owner",
        size: int = 4,
        visibility: str = "shared",
        properties: Mapping[str, str] | None = None,
        tags: Sequence[str] = (),
        members: Sequence[str] = (),
    ) -> str:
        """Add an active image and return its id.

        :param locations: of each location the store and the URL.
        """
        image_id = image_id or new_id()
        now = utc_now()
        times: dict[str, Any] = {"created_at": now, "updated_at": now, "deleted": False}
        image = {
            "id": image_id,
            "name": "image",
            "disk_format": "raw",
            "container_format": "bare",
            "size": size,
            "status": "active",
            "visibility": visibility,
            "owner": owner,
            "min_disk": 0,
            "min_ram": 0,
            "protected": False,
            "os_hidden": False,
        }
        children: dict[str, list[dict[str, Any]]] = {
            "image_locations": [
                {"value": url, "meta_data": json.dumps({"store": store}), "status": "active"}
                for store, url in locations
            ],
            "image_properties": [
                {"name": name, "value": value} for name, value in (properties or {}).items()
            ],
            "image_tags": [{"value": tag} for tag in tags],
            "image_members": [
                {"member": member, "can_share": False, "status": "pending"} for member in members
            ],
        }
        with self.engine.begin() as connection:
            connection.execute(self._tables["images"].insert(), image | times)
            for table, rows in children.items():
                for row in rows:
                    connection.execute(
                        self._tables[table].insert(), row | times | {"image_id": image_id}
                    )
        return image_id

    def delete(
        self,
        *image_ids: str,
        ago: float = 0.0,
        visible_as: Collection[str] = ("active",),
    ) -> None:
        """Do what DELETE does under delayed delete: the locations, then the rest in one go.

        :param ago: how many seconds ago that was.
        :param visible_as: statuses that an image may have; others are left alone.
        """
        then = utc_now() - timedelta(seconds=ago)
        moment = timedelta(milliseconds=5)
        with self.engine.begin() as connection:
            images = self._tables["images"]
            pick = sa.select(images.c.id).where(
                images.c.id.in_(image_ids),
                images.c.status.in_(visible_as),
                images.c.deleted.is_(sa.false()),
            )
            ids = connection.execute(pick.order_by(images.c.id).with_for_update()).scalars().all()
            if not ids:
                return
            self._mark(connection, "image_locations", ids, then - moment, status="pending_delete")
            for table in CHILDREN:
                self._mark(connection, table, ids, then)
            connection.execute(
                images.update()
                .where(images.c.id.in_(ids))
                .values(status="pending_delete", deleted=True, deleted_at=then, updated_at=then)
            )

    def _mark(
        self,
        connection: sa.Connection,
        name: str,
        image_ids: Sequence[str],
        then: datetime,
        **values: str,
    ) -> None:
        table = self._tables[name]
        if name == "image_locations":
            values |= {"updated_at": then}  # type: ignore[dict-item] # of two kinds of values
        connection.execute(
            table.update()
            .where(table.c.image_id.in_(image_ids), table.c.deleted.is_(sa.false()))
            .values(deleted=True, deleted_at=then, **values)
        )

    def take_off(self, image_id: str, store: str, *, ago: float = 0.0) -> None:
        """Do what DELETE /v2/stores/STORE/IMAGE does: one location of a live image goes.

        :param ago: how many seconds ago that was.
        """
        then = utc_now() - timedelta(seconds=ago)
        table, images = self._tables["image_locations"], self._tables["images"]
        with self.engine.begin() as connection:
            connection.execute(
                table.update()
                .where(
                    table.c.image_id == image_id,
                    table.c.meta_data == json.dumps({"store": store}),
                    table.c.deleted.is_(sa.false()),
                )
                .values(status="pending_delete", deleted=True, deleted_at=then, updated_at=then)
            )
            connection.execute(
                images.update().where(images.c.id == image_id).values(updated_at=utc_now())
            )

    def purge(self, *image_ids: str) -> None:
        """Remove what ``glance-manage db purge`` would of these images, if they are deleted."""
        images = self._tables["images"]
        with self.engine.begin() as connection:
            pick = sa.select(images.c.id).where(
                images.c.id.in_(image_ids),
                images.c.deleted.is_(sa.true()),
                images.c.deleted_at.is_not(None),
            )
            ids = connection.execute(pick.with_for_update()).scalars().all()
            for name in TABLES[:-1]:
                table = self._tables[name]
                connection.execute(table.delete().where(table.c.image_id.in_(ids)))
            connection.execute(images.delete().where(images.c.id.in_(ids)))

    def image(self, image_id: str) -> dict[str, Any]:
        """Return an image's row."""
        (row,) = self.rows("images", image_id)
        return row

    def rows(self, table: str, image_id: str) -> list[dict[str, Any]]:
        """Return an image's rows of a table, in the order of their ids."""
        columns = self._tables[table].c
        key = columns.id if table == "images" else columns.image_id
        query = sa.select(self._tables[table]).where(key == image_id).order_by(columns.id)
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def status(self, image_id: str) -> tuple[str, list[str]]:
        """Return the image's status and those of its locations."""
        locations = self.rows("image_locations", image_id)
        return str(self.image(image_id)["status"]), [str(row["status"]) for row in locations]

    def outstanding(self) -> list[str]:
        """Return the images that are due, or will be, and not scrubbed."""
        found = self.read(
            "SELECT DISTINCT i.id FROM images i LEFT JOIN image_locations l ON l.image_id = i.id"
            " WHERE (i.status = 'pending_delete' AND (i.deleted_at IS NOT NULL OR NOT i.deleted))"
            " OR (i.status = 'deleted' AND l.status = 'pending_delete')"
            " OR (i.status = 'active' AND l.status = 'pending_delete')"
        )
        return [str(image_id) for (image_id,) in found]

    def execute(self, statement: str, **values: object) -> None:
        """Run one statement in a transaction."""
        with self.engine.begin() as connection:
            connection.execute(_bound(statement, values))

    def read(self, query: str, **values: object) -> list[Any]:
        """Run one query."""
        with self.engine.connect() as connection:
            return list(connection.execute(_bound(query, values)))


def _bound(statement: str, values: Mapping[str, object]) -> sa.TextClause:
    """Give times their type, because SQLite compares them as text."""
    types = {name: sa.DateTime() for name, value in values.items() if isinstance(value, datetime)}
    return sa.text(statement).bindparams(
        *(sa.bindparam(name, value, types.get(name)) for name, value in values.items())
    )
