# SPDX-License-Identifier: Apache-2.0
"""Lock rows until the transaction ends, leaving out those that another transaction has locked."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from evscrub.domain.decisions import PENDING_DELETE
from evscrub.registry.tables import image_locations, images

K = TypeVar("K")


def lock_leases(
    connection: sa.Connection, location_ids: Collection[int]
) -> tuple[dict[int, datetime | None], set[int]]:
    """Lock locations.

    :returns: by id, ``updated_at`` of the locked ones that are ``pending_delete``; and the ids that
        another transaction has locked. An id that does not exist is in neither.
    """
    columns = image_locations.c
    rows, locked = _lock(connection, columns.id, location_ids, columns.status, columns.updated_at)
    return {
        key: updated_at for key, (_, status, updated_at) in rows.items() if status == PENDING_DELETE
    }, locked


def lock_images(connection: sa.Connection, image_ids: Collection[str]) -> tuple[set[str], set[str]]:
    """Lock images.

    :returns: the ids that were locked, and those that another transaction has locked. An id that
        does not exist is in neither.
    """
    rows, locked = _lock(connection, images.c.id, image_ids)
    return set(rows), locked


def _lock(
    connection: sa.Connection, key: sa.Column[K], ids: Collection[K], *columns: sa.Column[Any]
) -> tuple[dict[K, Any], set[K]]:
    if not ids:
        return {}, set()
    query = sa.select(key, *columns).where(key.in_(ids)).with_for_update(skip_locked=True)
    rows = {row[0]: row for row in connection.execute(query)}
    missing = set(ids) - rows.keys()
    if not missing:
        return rows, set()
    return rows, set(connection.execute(sa.select(key).where(key.in_(missing))).scalars())
