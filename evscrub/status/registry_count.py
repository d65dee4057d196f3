# SPDX-License-Identifier: Apache-2.0
"""Counts the pending images in the registry and their space, by owner and by store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Generic, TypeVar

import anyio
import sqlalchemy as sa
from oslo_log import log as logging

from evscrub.config.settings import Settings
from evscrub.domain.clock import Clock
from evscrub.domain.decisions import DELETED, PENDING_DELETE
from evscrub.registry.database import UNAVAILABLE, Database, read_now
from evscrub.registry.inventory import AWAITS_SCRUBBING
from evscrub.registry.rows import named_store
from evscrub.registry.tables import image_locations, images

LOG = logging.getLogger(__name__)

T = TypeVar("T")

_OWNERS = 10
#: Minimum interval between counts; it is longer if a count takes long.
_EVERY_SECONDS = 30.0
#: Maximum shares of time spent on counts of images and of bytes. The latter takes several times as
#: long, because it joins locations with their images.
_IMAGES_SHARE, _SPACE_SHARE = 0.02, 0.01
#: Maximum number of kinds of locations to read; the others count for no store. There are a few for
#: each store, and more only if users give locations metadata of their own.
_KINDS = 1000
#: How much of the metadata tells the store, characters. MariaDB groups by short texts in memory.
_METADATA_LENGTH = 255


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
class SpaceCount:
    """The space that pending images take at one moment.

    :param at: time of the count, seconds since boot.
    :param stores: bytes by enabled store, and for None of locations whose store is not enabled or
        that only their decrypted URLs tell. An image's size counts for each of its pending
        locations.
    """

    at: float
    stores: Mapping[str | None, int]


@dataclass(frozen=True, slots=True)
class RegistryCount:
    """The pending images in the registry at one moment.

    :param at: time of the count, seconds since boot.
    :param due: number of images whose delay is over and that are not held.
    :param later: number of images that fall due beyond the horizon of sweeps.
    :param owners: the ten owners with the most space, largest first.
    :param space: the latest count of their space, which is taken less often; None before the first.
    """

    at: float
    total: Pending
    due: int
    later: int
    owners: tuple[tuple[str | None, Pending], ...]
    space: SpaceCount | None = None


class _Paced(Generic[T]):
    """The latest result of a count in the registry, which is repeated at limited intervals.

    :param count: blocks; raises an exception if it fails.
    :param share: maximum share of time spent on it, above 0.
    """

    def __init__(self, count: Callable[[], T], clock: Clock, share: float) -> None:
        self.latest: T | None = None
        self._count = count
        self._clock = clock
        self._share = share
        self._again_at = 0.0

    async def refresh(self) -> None:
        """Count again if the latest count is old enough; keep it if that fails."""
        began = self._clock.boot()
        if began < self._again_at:
            return
        try:
            self.latest = await anyio.to_thread.run_sync(self._count, abandon_on_cancel=True)
        except Exception as error:  # noqa: BLE001 - rows may raise anything
            level = logging.DEBUG if isinstance(error, UNAVAILABLE) else logging.WARNING
            LOG.log(level, "Cannot count pending images: %s", type(error).__name__)
        finally:
            now = self._clock.boot()
            self._again_at = now + max(_EVERY_SECONDS, (now - began) / self._share)


class RegistryCounter:
    """Counts on request, at limited intervals and never concurrently.

    :param schemes: URL schemes of the enabled stores, by name.
    :param settings: returns the current settings.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        schemes: Mapping[str, Sequence[str]],
        settings: Callable[[], Settings],
    ) -> None:
        self._database = database
        self._clock = clock
        self._schemes = schemes
        self._settings = settings
        self._images = _Paced(self._count_images, clock, _IMAGES_SHARE)
        self._space = _Paced(self._count_space, clock, _SPACE_SHARE)

    @property
    def latest(self) -> RegistryCount | None:
        """The latest count; None before the first."""
        images = self._images.latest
        return images and replace(images, space=self._space.latest)

    async def refresh(self) -> None:
        """Count again what was counted long enough ago."""
        await self._images.refresh()
        await self._space.refresh()

    def _count_images(self) -> RegistryCount:
        policy, horizon = self._settings().policy, self._settings().horizon_seconds
        with self._database.reading() as connection:
            due_until = read_now(connection) - policy.scrub_time
            later_from = due_until + timedelta(seconds=horizon)
            rows = connection.execute(
                sa.select(
                    images.c.owner,
                    sa.func.count(),
                    _sum(images.c.size),
                    _count_if(images.c.deleted_at.is_(None)),
                    _count_if(images.c.deleted_at <= due_until),
                    _count_if(images.c.deleted_at > later_from),
                )
                .where(AWAITS_SCRUBBING)
                .group_by(images.c.owner)
            ).all()
        # A sum is a Decimal on MySQL and PostgreSQL.
        owners = [(owner, Pending(count, int(size), held)) for owner, count, size, held, *_ in rows]
        owners.sort(key=lambda each: (-each[1].size_bytes, each[0] or ""))
        total = Pending(
            sum(pending.images for _, pending in owners),
            sum(pending.size_bytes for _, pending in owners),
            sum(pending.held for _, pending in owners),
        )
        due, later = (sum(row[column] for row in rows) for column in (4, 5))
        return RegistryCount(self._clock.boot(), total, due, later, tuple(owners[:_OWNERS]))

    def _count_space(self) -> SpaceCount:
        """Sum up the sizes of pending images by store, for each location.

        Locations are grouped by what tells their store, which is the same for nearly all of a
        store, so that the database returns a few rows and no URL.
        """
        known = sorted({scheme for schemes in self._schemes.values() for scheme in schemes})
        url = image_locations.c.value
        metadata = sa.func.substr(image_locations.c.meta_data, 1, _METADATA_LENGTH)
        scheme = sa.case(
            *((url.startswith(f"{each}:", autoescape=True), each) for each in known), else_=""
        )
        size = _sum(images.c.size).label("size")
        query = (
            sa.select(
                metadata.label("metadata"),
                scheme.label("scheme"),
                size,
                sa.func.sum(_sum(images.c.size)).over().label("total"),
            )
            .join_from(image_locations, images, image_locations.c.image_id == images.c.id)
            .where(
                image_locations.c.deleted == sa.true(),
                image_locations.c.status == PENDING_DELETE,
                # As AWAITS_SCRUBBING, whose EXISTS need not be evaluated here.
                images.c.deleted == sa.true(),
                images.c.status.in_((PENDING_DELETE, DELETED)),
            )
            .group_by("metadata", "scheme")
            .order_by(size.desc())
            .limit(_KINDS)
        )
        found: dict[str | None, int] = dict.fromkeys(self._schemes, 0)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            store = self._store_of(named_store(row.metadata), row.scheme)
            found[store] = found.get(store, 0) + int(row.size)
        if rest := sum(int(row.total) for row in rows[:1]) - sum(found.values()):
            found[None] = found.get(None, 0) + rest
        return SpaceCount(self._clock.boot(), found)

    def _store_of(self, named: str | None, scheme: str) -> str | None:
        """Return the store that a row names, or the only one of its scheme; None if unknown."""
        if named is not None:
            return named if named in self._schemes else None
        candidates = [name for name, schemes in self._schemes.items() if scheme in schemes]
        return candidates[0] if len(candidates) == 1 else None


def _sum(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.func.sum(column), 0)


def _count_if(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.count(sa.case((condition, 1)))
