# SPDX-License-Identifier: Apache-2.0
"""Find locations whose data another location still needs, so that the data must stay.

Glance lets an administrator give several images the same location, in different spellings. It keeps
no reference count and has no index on URLs, so an index of the objects of all live and pending
locations is kept in memory. The index only finds candidates: their rows are read again by id.
"""

import random
import threading
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import sqlalchemy as sa

from evscrub.domain import location_crypt
from evscrub.domain.clock import Clock, Moment
from evscrub.domain.decisions import PENDING_DELETE, LocationRow
from evscrub.domain.hold_rules import USABLE
from evscrub.domain.object_identity import Identity, Relation, place_of
from evscrub.domain.verdict import (
    CLAIM_LOST,
    HIDDEN,
    SHARED,
    UNDECIPHERABLE,
    StoreNotUsableError,
    Verdict,
    maybe_shared,
)
from evscrub.registry.causal import caught_up
from evscrub.registry.database import Database, read_now, retried
from evscrub.registry.paging import keyset_pages
from evscrub.registry.recent_ids import OVERLAP_SECONDS, RecentIds
from evscrub.registry.rows import LOCATION_COLUMNS, unchecked_location_row
from evscrub.registry.samples import Samples
from evscrub.registry.tables import bounded, image_locations, images
from evscrub.registry.url_index import UrlIndex

_PAGE_ROWS = 5000
#: All locations are read again after this time, to find rows that were changed in place and rows
#: whose transaction took longer than the overlap.
_READ_SECONDS = 3600.0
#: Allowed skew of the clocks by which Glance's hosts stamp new rows; the sweep allows the same.
_SKEW_SECONDS = 300.0

_INDEXED_COLUMNS = (
    image_locations.c.id,
    bounded(image_locations.c.value),
    image_locations.c.deleted,
)
_LIVE = image_locations.c.deleted == sa.false()
_PENDING = image_locations.c.status == PENDING_DELETE


class Objects(Protocol):
    """Identifies the objects of locations.

    Each method raises StoreNotUsableError if the object cannot be identified.
    """

    def index_key(self, value: str) -> str:
        """Return a key that is equal for all locations of an object, and rarely for others."""

    def key_and_place(self, value: str) -> tuple[str, str]:
        """Return the index key of a location, and its place, which does not depend on the store."""

    def identify(self, row: LocationRow) -> Identity:
        """Return a location's object."""

    def relate(self, one: Identity, other: Identity) -> Relation:
        """Return whether two locations are of the same object."""


class SharedUrls:
    """Compares objects with those of all live and pending locations. Thread-safe.

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
        self._index = UrlIndex()
        self._live = Samples(self._randrange)
        self._recent = RecentIds(0, 0, clock.boot())
        self._read_at: Moment | None = None
        #: Whether any encrypted location could be decrypted, and whether any could not.
        self._decrypted = self._hidden = False

    def live_ids(self, part: str) -> list[int]:
        """Return ids of a few locations in a part of a store that were live when last read.

        :param part: see :func:`evscrub.domain.object_identity.endpoint`.
        """
        with self._lock:
            return self._live.of(place_of(part))

    @retried
    def among(
        self,
        rows: Collection[LocationRow],
        *,
        just_claimed: bool = True,
        due_before: datetime | None = None,
    ) -> dict[int, Verdict]:
        """Return verdicts on those of the claimed rows whose data another location may need.

        :param just_claimed: whether all rows were claimed in the last call, so that none of them
            needs the data of another. Otherwise the claim of one may have been lost, and the image
            restored since.
        :param due_before: for a rehearsal: images deleted before this time, naive UTC, are as good
            as claimed.
        :returns: by row id: SHARED if another location certainly has the same data,
            :func:`maybe_shared` if it may have, CLAIM_LOST if the row is live or pending itself,
            and HIDDEN for all rows if there are encrypted locations and none can be decrypted.
        :raises oslo_db.exception.DBError: the registry cannot be read.
        """
        rows_by_key: dict[str, list[LocationRow]] = {}
        for row in rows:
            key = self._try_key(row.value)
            if key is not None:  # else the location is parked for that reason, and its data stays
                rows_by_key.setdefault(key, []).append(row)
        if not rows_by_key:
            return {}
        own = {row.id for row in rows} if just_claimed else set()
        with self._lock, caught_up(self.database) as connection:
            self._read(connection)
            found = {number for key in rows_by_key for number in self._index.ids(key)}
            wanted = self._wanted(connection, found - own, due_before)
            hidden = self._hidden and not self._decrypted
        verdicts = {row.id: HIDDEN for row in rows} if hidden else {}
        for key, other in wanted:
            for row in rows_by_key.get(key, ()):
                if row.id == other.id:
                    continue
                one = self._objects.identify(row)
                match self._objects.relate(one, self._objects.identify(other)):
                    case Relation.SAME:
                        verdicts[row.id] = SHARED
                    case Relation.UNKNOWN:
                        verdicts.setdefault(row.id, maybe_shared(other.store))
        if due_before is None:  # else nothing is claimed
            # The database has lost the claim, as a replica that took over may have, or somebody
            # has undone it by SQL; the image may be restored.
            lost = {other.id for _, other in wanted}
            verdicts |= {row.id: CLAIM_LOST for row in rows if row.id in lost}
        return verdicts

    def _read(self, connection: sa.Connection) -> None:
        """Update the index with new rows, or rebuild it if it is too old."""
        recent = self._recent
        numbers = image_locations.c.id
        # One statement, so that the count and the highest id are of the same moment.
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
        """Index all locations, and find the floor above which further rows may appear."""
        now = self._clock.moment()
        first_recent = (
            sa.select(sa.func.min(image_locations.c.id))
            .where(
                image_locations.c.created_at
                >= read_now(connection) - timedelta(seconds=OVERLAP_SECONDS + _SKEW_SECONDS)
            )
            .scalar_subquery()
        )
        # Not the first recent row's id: a row with a lower id may not be committed yet.
        older = sa.select(sa.func.max(image_locations.c.id)).where(
            image_locations.c.id < sa.func.coalesce(first_recent, highest + 1)
        )
        floor = min(connection.execute(older).scalar() or 0, highest)
        recent = RecentIds(floor, highest, self._clock.boot())
        self._decrypted = self._hidden = False
        self._live = Samples(self._randrange)
        self._index = UrlIndex(self._keys(connection, 0))
        self._recent, self._read_at = recent, now
        return recent

    def _read_recent(self, connection: sa.Connection, recent: RecentIds, last: int) -> None:
        """Index the locations above an id that are not known yet, whatever their status."""
        wanted = sa.or_(_LIVE, _PENDING).label("wanted")
        query = sa.select(*_INDEXED_COLUMNS, wanted)
        again = last < recent.highest
        ids = array("Q")
        for page in _pages(connection, query, last):
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
            if len(page) == _PAGE_ROWS and not again:  # by page, to keep few ids in memory
                recent.take_in(ids, recent.highest, self._clock.boot())
                ids = array("Q")
        recent.take_in(ids, last if again else recent.highest, self._clock.boot())

    def _keys(self, connection: sa.Connection, last: int) -> Iterator[tuple[int, str]]:
        """Yield ids and index keys of the live and pending locations above an id."""
        query = sa.select(*_INDEXED_COLUMNS).where(sa.or_(_LIVE, _PENDING))
        for page in _pages(connection, query, last):
            for number, value, deleted in page:
                key = self._see(number, value, live=not deleted)
                if key is not None:
                    yield number, key

    def _wanted(
        self,
        connection: sa.Connection,
        numbers: Collection[int],
        due_before: datetime | None,
    ) -> list[tuple[str, LocationRow]]:
        """Return index keys and rows of those of the locations that still need their data."""
        if not numbers:
            return []
        found = connection.execute(
            sa.select(*LOCATION_COLUMNS)
            .join(images, images.c.id == image_locations.c.image_id, isouter=True)
            .where(image_locations.c.id.in_(numbers), sa.or_(_LIVE, _may_be_restored(due_before)))
        )
        rows = map(unchecked_location_row, found)
        keys = [(self._try_key(row.value), row) for row in rows]
        return [(key, row) for key, row in keys if key is not None]

    def _see(self, number: int, value: str, *, live: bool) -> str | None:
        """Return the index key of a location, or None.

        Sample its place if it is live, and record whether encrypted locations can be decrypted.
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
            # A value that names no object shares no data, and must not fail other images.
            return None


def _may_be_restored(due_before: datetime | None) -> sa.ColumnElement[bool]:
    """Return the condition for locations whose images may be restored, which needs their data.

    These are pending images, and images in use without a live location, as ``glance-scrubber
    --restore`` and a DELETE that broke off leave them. A claimed image is none: of several that
    share an object, the last one to be claimed finds no other and deletes the data.

    :param due_before: without those of pending images that were deleted before; None for all.
    """
    pending = images.c.status == PENDING_DELETE
    if due_before is not None:
        later = sa.or_(images.c.deleted_at.is_(None), images.c.deleted_at > due_before)
        pending = sa.and_(pending, later)
    other = image_locations.alias("other")
    live = sa.exists().where(other.c.image_id == images.c.id, other.c.deleted == sa.false())
    incomplete = sa.and_(images.c.status.in_(USABLE), ~live)
    return sa.and_(_PENDING, sa.or_(pending, incomplete))


def _pages(
    connection: sa.Connection, query: "sa.Select[Any]", last: int
) -> Iterator[Sequence[Any]]:
    """Yield pages of the rows of a query on locations above an id."""
    query = query.order_by(image_locations.c.id).limit(_PAGE_ROWS)

    def read(after: int) -> Sequence[Any]:
        return connection.execute(query.where(image_locations.c.id > after)).all()

    return keyset_pages(read, lambda row: int(row.id), last, _PAGE_ROWS)
