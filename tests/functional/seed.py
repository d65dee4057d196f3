# SPDX-License-Identifier: Apache-2.0
"""A registry with images in it that no Glance put there."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from evscrub.demo.glance_config import GlanceConfig, write_config
from tests.servers import free_port

_DATA = b"data"


def seeded_glance(
    directory: Path, registry_url: str, stores: Mapping[str, str] | None = None
) -> GlanceConfig:
    """Write the configuration of a Glance that does not run, and return it.

    :param stores: types of its stores by name; two file stores if not given.
    """
    glance = GlanceConfig(
        directory,
        free_port(),
        registry_url,
        "kombu+memory://",
        stores={"fast": "file", "slow": "file"} if stores is None else stores,
    )
    write_config(glance)
    return glance


@dataclass
class Seed:
    """Rows of images, written all at once by :meth:`write`.

    :param glance: whose database and stores they are for.
    """

    glance: GlanceConfig
    _images: list[dict[str, object]] = field(default_factory=list)
    _locations: list[dict[str, object]] = field(default_factory=list)

    def add(
        self,
        *,
        deleted_ago: float | None,
        store: str = "fast",
        owner: str = "owner",
        size: int = 1000,
        status: str = "pending_delete",
        url: str | None = None,
        with_file: bool = True,
        named: bool = True,
    ) -> str:
        """Add an image with one pending location.

        :param deleted_ago: seconds since its deletion; None for one that is held.
        :param url: where its data is; None for a file in `store`, which is made.
        :param named: whether the location's row names the store.
        """
        image_id = str(uuid.uuid4())
        now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
        deleted_at = None if deleted_ago is None else now - timedelta(seconds=deleted_ago)
        path = self.path(image_id, store)
        if url is None and with_file:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_DATA)
        common = {"created_at": now, "updated_at": now - timedelta(days=1)}
        self._images.append(
            common
            | {
                "id": image_id,
                "name": "an image",
                "owner": owner,
                "size": size,
                "status": status,
                "deleted": status in {"pending_delete", "deleted"},
                "deleted_at": deleted_at if status in {"pending_delete", "deleted"} else None,
                "min_disk": 0,
                "min_ram": 0,
                "visibility": "private",
                "protected": False,
                "os_hidden": False,
            }
        )
        self._locations.append(
            common
            | {
                "image_id": image_id,
                "value": url or f"file://{path}",
                "meta_data": json.dumps({"store": store} if named else {}),
                "status": "pending_delete",
                "deleted": True,
                "deleted_at": deleted_at,
            }
        )
        return image_id

    def path(self, image_id: str, store: str = "fast") -> Path:
        return self.glance.data_directory(store) / image_id

    def write(self) -> None:
        """Write what was added."""
        engine = sa.create_engine(self.glance.database_url, poolclass=NullPool)
        metadata = sa.MetaData()
        with engine.begin() as connection:
            for table, rows in (("images", self._images), ("image_locations", self._locations)):
                connection.execute(sa.Table(table, metadata, autoload_with=engine).insert(), rows)
        self._images.clear()
        self._locations.clear()
