# SPDX-License-Identifier: Apache-2.0
"""Counts the pending images in the registry and their space, by owner."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import anyio
import sqlalchemy as sa
from oslo_log import log as logging

from evscrub.domain.clock import Clock
from evscrub.registry.database import UNAVAILABLE, Database, read_now
from evscrub.registry.inventory import AWAITS_SCRUBBING
from evscrub.registry.tables import images

LOG = logging.getLogger(__name__)

_OWNERS = 10
#: Minimum interval between counts; it is longer if a count takes long.
_EVERY_SECONDS = 30.0
#: Maximum share of time spent on counts.
_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Pending:
    """Pending images of one owner, or of all.

    :param images: number of images.
    :param size_bytes: their total size in the registry.
    :param held: number of images that are held.
    """

    images: int
    size_bytes: int
    held: int


@dataclass(frozen=True, slots=True)
class RegistryCount:
    """The pending images in the registry at one moment.

    :param at: time of the count, seconds since boot.
    :param later: number of images that fall due beyond the horizon of sweeps.
    :param owners: the ten owners with the most space, largest first.
    """

    at: float
    total: Pending
    later: int
    owners: tuple[tuple[str | None, Pending], ...]


class RegistryCounter:
    """Counts on request, at limited intervals and never concurrently.

    :param kept: returns the age up to which deleted images fall due beyond the horizon of sweeps.
    """

    def __init__(self, database: Database, clock: Clock, kept: Callable[[], timedelta]) -> None:
        self.latest: RegistryCount | None = None
        self._database = database
        self._clock = clock
        self._kept = kept
        self._again_at = 0.0
        self._counting = False

    async def refresh(self) -> None:
        """Count again if the latest count is old enough; keep it if the registry is unavailable."""
        began = self._clock.boot()
        if self._counting or began < self._again_at:
            return
        self._counting = True
        try:
            self.latest = await anyio.to_thread.run_sync(self._count, abandon_on_cancel=True)
        except UNAVAILABLE as error:
            LOG.debug("Cannot count pending images: %s", type(error).__name__)
        finally:
            self._counting = False
            now = self._clock.boot()
            self._again_at = now + max(_EVERY_SECONDS, (now - began) / _SHARE)

    def _count(self) -> RegistryCount:
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
        owners = tuple((owner, _pending(*values)) for owner, *values in rows)
        return RegistryCount(self._clock.boot(), _pending(*total), later_count, owners)


def _pending(count: int, size: float, held: int) -> Pending:
    # A sum is a Decimal on MySQL and PostgreSQL.
    return Pending(count, int(size), held)
