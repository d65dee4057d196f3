# SPDX-License-Identifier: Apache-2.0
"""The registry's own count of pending images, and where their space is, by owner."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import anyio
import sqlalchemy as sa
from oslo_log import log as logging

from evscrub.registry.database import UNAVAILABLE, Database, read_now
from evscrub.registry.inventory import AWAITS_SCRUBBING
from evscrub.registry.tables import images

LOG = logging.getLogger(__name__)

_OWNERS = 10
#: Asked of the registry this often at most, and less often where it takes long.
_EVERY_SECONDS = 30.0
_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Owned:
    """What one owner, or all of them, have pending."""

    images: int
    size_bytes: int
    held: int


@dataclass(frozen=True, slots=True)
class Space:
    """All that is pending.

    :param at: when this was read, seconds of the monotonic clock.
    :param later: images that fall due later than an agent takes them into its memory.
    :param owners: those with the most space, the largest first.
    """

    at: float
    total: Owned
    later: int
    owners: tuple[tuple[str | None, Owned], ...]

    @property
    def age_seconds(self) -> float:
        """How long ago this was read."""
        return time.monotonic() - self.at


class SpaceReader:
    """Reads it while somebody looks, never twice at once.

    :param kept: returns how recently an image must have been deleted not to be in agents' memory.
    """

    def __init__(self, database: Database, kept: Callable[[], timedelta]) -> None:
        self.latest: Space | None = None
        self._database = database
        self._kept = kept
        self._again_at = 0.0
        self._reading = False

    async def refresh(self) -> None:
        """Read again if what is known is old."""
        if self._reading or time.monotonic() < self._again_at:
            return
        self._reading = True
        began = time.monotonic()
        try:
            self.latest = await anyio.to_thread.run_sync(self._read, abandon_on_cancel=True)
        except UNAVAILABLE as error:
            LOG.debug("The space by owner cannot be read: %s", type(error).__name__)
        finally:
            self._reading = False
            now = time.monotonic()
            self._again_at = now + max(_EVERY_SECONDS, (now - began) / _SHARE)

    def _read(self) -> Space:
        size = sa.func.coalesce(sa.func.sum(images.c.size), 0)
        held = sa.func.count(sa.case((images.c.deleted_at.is_(None), 1)))
        columns: tuple[sa.ColumnElement[Any], ...] = (sa.func.count(), size, held)
        by_owner = (
            sa.select(images.c.owner, *columns)
            .where(AWAITS_SCRUBBING)
            .group_by(images.c.owner)
            .order_by(size.desc(), images.c.owner)
            .limit(_OWNERS)
        )
        with self._database.reading() as connection:
            since = read_now(connection) - self._kept()
            later = sa.func.count(sa.case((images.c.deleted_at > since, 1)))
            query = sa.select(*columns, later).where(AWAITS_SCRUBBING)
            *total, later_count = connection.execute(query).one()
            rows = connection.execute(by_owner).all()
        owners = tuple((owner, _owned(*values)) for owner, *values in rows)
        return Space(time.monotonic(), _owned(*total), later_count, owners)


def _owned(count: int, size: float, held: int) -> Owned:
    # A sum is a Decimal on MySQL and PostgreSQL.
    return Owned(count, int(size), held)
