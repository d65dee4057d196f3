# SPDX-License-Identifier: Apache-2.0
"""Which locations share their data with another that still wants it: it must stay.

Glance lets an administrator give several images one location, in whatever spelling, counts them
nowhere, and has no index on URLs. So one of the objects of all live and pending locations is kept
in memory here. It only points at rows: the registry is asked by their ids what they are now.
"""

import random
import threading
from array import array
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from typing import Protocol

import sqlalchemy as sa

from evscrub.domain import location_crypt
from evscrub.domain.clock import Clock, Moment
from evscrub.domain.decisions import PENDING_DELETE, LocationRow
from evscrub.domain.object_identity import Identity, Relation, place_of
from evscrub.domain.verdict import (
    HIDDEN,
    SHARED,
    UNDECIPHERABLE,
    StoreNotUsableError,
    Verdict,
    untold,
)
from evscrub.registry.causal import caught_up
from evscrub.registry.database import Database, read_now, retried
from evscrub.registry.object_index import ObjectIndex
from evscrub.registry.recent_ids import OVERLAP_SECONDS, RecentIds
from evscrub.registry.rows import named_store
from evscrub.registry.samples import Samples
from evscrub.registry.tables import bounded, image_locations, images

_PAGE_ROWS = 5000
#: All locations are read again so often: that finds those that were changed in place, and rows
#: whose transaction took longer than the overlap.
_READ_SECONDS = 3600.0
#: How far the clocks may be off by which Glance's hosts stamp new rows; the sweep allows as much.
_SKEW_SECONDS = 300.0

_INDEXED_COLUMNS = (
    image_locations.c.id,
    bounded(image_locations.c.value),
    image_locations.c.deleted,
)
_LIVE = image_locations.c.deleted == sa.false()
_PENDING = image_locations.c.status == PENDING_DELETE
#: A pending image may be restored. One that is claimed may not, and is not waited for: of several
#: that share an object, the last one to be claimed finds no other and takes the data.
_WANTED = sa.or_(_LIVE, sa.and_(_PENDING, images.c.status == PENDING_DELETE))


class Objects(Protocol):
    """Tells the objects of locations; each function raises StoreNotUsableError where it cannot."""

    def index_key(self, value: str) -> str:
        """Return a text that is equal for all locations of one object, and rarely for others."""

    def key_and_place(self, value: str) -> tuple[str, str]:
        """Return the same text, and the place that a location is in, whatever its store."""

    def identify(self, row: LocationRow) -> Identity:
        """Return a location's object."""

    def relate(self, one: Identity, other: Identity) -> Relation:
        """Say whether two locations are of the same object."""


class SharedUrls:
    """Compares objects with those of all live and pending locations.

    :param randrange: draws a number from 0 to below one, for samples of live locations.
    """

    def __init__(
        self,
        database: Database,
        objects: Objects,
        clock: Clock,
        randrange: Callable[[int], int] = random.randrange,
    ) -> None:
        self.database = database
        self._objects = objects
        self._clock = clock
        self._randrange = randrange
        self._lock = threading.Lock()
        self._index = ObjectIndex()
        self._live = Samples(self._randrange)
        self._recent = RecentIds(0, 0, clock.boot())
        self._read_at: Moment | None = None
        #: Whether encrypted locations were seen that could be read, and ones that could not.
        self._decrypted = self._hidden = False

    def live_ids(self, part: str) -> list[int]:
        """Return ids of a few locations in a part of a store, of all ages, which were live."""
        with self._lock:
            return self._live.of(place_of(part))

    @retried
    def among(
        self, rows: Collection[LocationRow], *, just_claimed: bool = True
    ) -> dict[int, Verdict]:
        """Return what holds of those rows, all claimed, whose data another location may want.

        :param just_claimed: whether all rows are claimed for sure, so that none waits for another;
            otherwise one whose claim was lost and that was restored wants its data.
        :returns: by row id, SHARED where it is surely the same data, :func:`untold` where it may
            be, and HIDDEN for all where there are encrypted locations and none can be decrypted.
        """
        rows_by_key: dict[str, list[LocationRow]] = {}
        for row in rows:
            key = self._try_key(row.value)
            if key is not None:  # else it is parked for that reason, so its data stays anyway
                rows_by_key.setdefault(key, []).append(row)
        if not rows_by_key:
            return {}
        own = {row.id for row in rows} if just_claimed else set()
        with self._lock, caught_up(self.database) as connection:
            self._read(connection)
            found = {number for key in rows_by_key for number in self._index.ids(key)}
            wanted = self._wanted(connection, found - own)
            hidden = self._hidden and not self._decrypted
        verdicts = {row.id: HIDDEN for row in rows} if hidden else {}
        for key, other in wanted:
            for row in rows_by_key.get(key, ()):
                if row.id == other.id:  # released meanwhile: its lease tells
                    continue
                one = self._objects.identify(row)
                match self._objects.relate(one, self._objects.identify(other)):
                    case Relation.SAME:
                        verdicts[row.id] = SHARED
                    case Relation.UNTOLD:
                        verdicts.setdefault(row.id, untold(other.store))
        return verdicts

    def _read(self, connection: sa.Connection) -> None:
        """Read what is new, after all of it when that was long ago."""
        recent = self._recent
        numbers = image_locations.c.id
        # One statement, so that what is counted and the highest id are of one moment.
        of_known = sa.and_(numbers > recent.floor, numbers <= recent.highest)
        highest, count, total = connection.execute(
            sa.select(
                sa.select(sa.func.max(numbers)).scalar_subquery(),
                sa.func.count(numbers),
                sa.func.sum(numbers),
            ).where(of_known)
        ).one()
        highest = highest or 0
        last = recent.highest
        old = self._read_at is None or self._clock.since(self._read_at) > _READ_SECONDS
        if old or recent.has_gone_back(highest):
            recent = self._read_all(connection, highest)
            last = recent.floor
        elif highest < recent.highest or (count, int(total or 0)) != recent.fingerprint:
            recent.cut(highest)
            last = recent.floor
        elif highest == recent.highest:
            recent.take_in((), last, self._clock.boot())
            return
        self._read_recent(connection, recent, last)

    def _read_all(self, connection: sa.Connection, highest: int) -> RecentIds:
        """Index all locations, and find out below which of them more may appear."""
        now = self._clock.moment()
        first_recent = (
            sa.select(sa.func.min(image_locations.c.id))
            .where(
                image_locations.c.created_at
                >= read_now(connection) - timedelta(seconds=OVERLAP_SECONDS + _SKEW_SECONDS)
            )
            .scalar_subquery()
        )
        # Not from the first recent row: one with a lower id may be on its way.
        older = sa.select(sa.func.max(image_locations.c.id)).where(
            image_locations.c.id < sa.func.coalesce(first_recent, highest + 1)
        )
        floor = min(connection.execute(older).scalar() or 0, highest)
        recent = RecentIds(floor, highest, self._clock.boot())
        self._decrypted = self._hidden = False
        self._live = Samples(self._randrange)
        self._index = ObjectIndex(self._keys(connection, 0))
        self._recent, self._read_at = recent, now
        return recent

    def _read_recent(self, connection: sa.Connection, recent: RecentIds, last: int) -> None:
        """Index locations above an id, whatever their status, as far as they are not known."""
        wanted = sa.or_(_LIVE, _PENDING).label("wanted")
        query = sa.select(*_INDEXED_COLUMNS, wanted)
        query = query.order_by(image_locations.c.id).limit(_PAGE_ROWS)
        again = last < recent.highest
        ids = array("Q")
        start, full = last, True
        while full:
            page = connection.execute(query.where(image_locations.c.id > start)).all()
            full = len(page) == _PAGE_ROWS
            start = page[-1].id if page else start
            new = [
                (
                    row.id,
                    self._see(row.id, row.value, live=not row.deleted)
                    if row.wanted
                    else self._try_key(row.value),
                )
                for row in page
                if row.id not in recent
            ]
            self._index.update((number, key) for number, key in new if key is not None)
            ids.extend(row.id for row in page)
            if full and not again:  # known at once, many ids take no memory
                recent.take_in(ids, recent.highest, self._clock.boot())
                ids = array("Q")
        recent.take_in(ids, last if again else recent.highest, self._clock.boot())

    def _keys(self, connection: sa.Connection, last: int) -> Iterator[tuple[int, str]]:
        """Yield live and pending locations above an id, with the keys of their objects."""
        while True:
            page = connection.execute(
                sa.select(*_INDEXED_COLUMNS)
                .where(image_locations.c.id > last, sa.or_(_LIVE, _PENDING))
                .order_by(image_locations.c.id)
                .limit(_PAGE_ROWS)
            ).all()
            for number, value, deleted in page:
                key = self._see(number, value, live=not deleted)
                if key is not None:
                    yield number, key
            if len(page) < _PAGE_ROWS:
                return
            last = page[-1].id

    def _wanted(
        self, connection: sa.Connection, numbers: Collection[int]
    ) -> list[tuple[str, LocationRow]]:
        """Return those of the locations whose data is wanted, with the keys of their objects."""
        if not numbers:
            return []
        found = connection.execute(
            sa.select(
                image_locations.c.id,
                bounded(image_locations.c.value),
                bounded(image_locations.c.meta_data),
                image_locations.c.status,
                image_locations.c.deleted,
                image_locations.c.deleted_at,
                image_locations.c.updated_at,
            )
            .join(images, images.c.id == image_locations.c.image_id, isouter=True)
            .where(image_locations.c.id.in_(numbers), _WANTED)
        )
        rows = [
            LocationRow(number, value, named_store(metadata), *rest)
            for number, value, metadata, *rest in found
        ]
        keys = [(self._try_key(row.value), row) for row in rows]
        return [(key, row) for key, row in keys if key is not None]

    def _see(self, number: int, value: str, *, live: bool) -> str | None:
        """Return the key of a location's object.

        Take in its place, if it is live, and whether encrypted locations can be read.
        """
        try:
            if live:
                key, place = self._objects.key_and_place(value)
                self._live.add(place, number)
            else:
                key = self._objects.index_key(value)
        except StoreNotUsableError as error:
            if error.reason == UNDECIPHERABLE:
                self._hidden |= location_crypt.is_encrypted(value)
            return None
        except (TypeError, ValueError):
            return None
        if ":" not in value:
            self._decrypted = True
        return key

    def _try_key(self, value: str) -> str | None:
        try:
            return self._objects.index_key(value)
        except (StoreNotUsableError, TypeError, ValueError):
            # A row that is no URL at all shares no data, and is nobody else's trouble.
            return None
