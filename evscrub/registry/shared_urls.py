# SPDX-License-Identifier: Apache-2.0
"""Find locations whose data another location still needs, so that the data must stay.

Glance lets an administrator give several images the same location, in different spellings, and
keeps no reference count. An index of the objects of all live and pending locations is kept in
memory. It only finds candidates: their rows are read again by id.
"""

import random
import threading
from collections.abc import Callable, Collection
from datetime import datetime
from typing import NamedTuple, Protocol

import sqlalchemy as sa

from evscrub.domain.clock import Clock
from evscrub.domain.decisions import PENDING_DELETE, LocationRow
from evscrub.domain.hold_rules import USABLE
from evscrub.domain.object_identity import Identity, Relation
from evscrub.domain.verdict import CLAIM_LOST, HIDDEN, SHARED, Verdict, maybe_shared
from evscrub.registry import object_index
from evscrub.registry.causal import caught_up
from evscrub.registry.database import Database, retried
from evscrub.registry.object_index import LIVE, PENDING, ObjectIndex, key_of
from evscrub.registry.rows import LOCATION_COLUMNS, unchecked_location_row
from evscrub.registry.tables import image_locations, images

#: An index of this age is not used: rows that were changed in place, and rows whose transaction
#: took longer than the overlap, are found by reading all again.
_MAX_AGE_SECONDS = 3600.0
#: An index of this age is renewed, so that no claim has to wait for a new one.
_RENEWAL_SECONDS = 2700.0


class Objects(object_index.Objects, Protocol):
    """Names, identifies and compares the objects of locations."""

    def identify(self, row: LocationRow) -> Identity:
        """Return a location's object.

        :raises StoreNotUsableError: the object cannot be identified.
        """

    def relate(self, one: Identity, other: Identity) -> Relation:
        """Return whether two locations are of the same object."""


class _Renewal(NamedTuple):
    old: ObjectIndex
    new: ObjectIndex


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
        #: Held while the index is used, updated or replaced.
        self._lock = threading.Lock()
        self._index: ObjectIndex | None = None
        self._renewal: _Renewal | None = None

    def live_ids(self, part: str) -> list[int]:
        """Return ids of a few locations in a part of a store that were live when last read.

        :param part: see :func:`evscrub.domain.object_identity.endpoint`.
        """
        with self._lock:
            return [] if self._index is None else self._index.live_ids(part)

    @retried
    def among(
        self,
        rows: Collection[LocationRow],
        *,
        due_before: datetime | None = None,
    ) -> dict[int, Verdict]:
        """Return verdicts on those of the claimed rows whose data another location may need.

        :param due_before: for a rehearsal: images deleted before this time, naive UTC, are as good
            as claimed.
        :returns: by row id: SHARED if another location certainly has the same data,
            :func:`maybe_shared` if it may have, CLAIM_LOST if the row is live or pending itself,
            and HIDDEN for all rows if there are encrypted locations and none can be decrypted.
        :raises oslo_db.exception.DBError: the registry cannot be read.
        """
        rows_by_key: dict[str, list[LocationRow]] = {}
        for row in rows:
            key = key_of(self._objects, row.value)
            if key is not None:  # else the location is parked for that reason, and its data stays
                rows_by_key.setdefault(key, []).append(row)
        if not rows_by_key:
            return {}
        with self._lock, caught_up(self.database) as connection:
            index = self._index = self._up_to_date(connection)
            found = {number for key in rows_by_key for number in index.ids(key)}
            wanted = self._wanted(connection, found, due_before)
        verdicts = {row.id: HIDDEN for row in rows} if index.hides_locations else {}
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
            # has undone it, as glance-scrubber --restore does if it read the image before the claim
            # and waited for its lock: Glance's image_restore does not compare when it sets.
            lost = {other.id for _, other in wanted}
            verdicts |= {row.id: CLAIM_LOST for row in rows if row.id in lost}
        return verdicts

    @property
    def is_old(self) -> bool:
        """Whether the index should be renewed."""
        return self._index is not None and self._index.age_seconds > _RENEWAL_SECONDS

    @retried
    def renew_page(self) -> bool:
        """Read a page of an index that is to replace an old one, which serves meanwhile.

        Not thread-safe: the caller waits for one call to end before the next.

        :returns: whether to call again: False once the new index serves, or none is needed.
        :raises oslo_db.exception.DBError: the registry cannot be read; the next call goes on.
        """
        old, renewal = self._index, self._renewal
        if old is None or not self.is_old:
            return False
        if renewal is None or renewal.old is not old:
            with caught_up(self.database) as connection:
                self._renewal = _Renewal(old, self._begin(connection))
            return True
        with caught_up(self.database) as connection:
            if renewal.new.read_page(connection):
                return True
        with self._lock, caught_up(self.database) as connection:
            if self._index is old:  # else a claim has read all meanwhile
                renewal.new.replace(old, connection)
                self._index = renewal.new
        self._renewal = None
        return False

    def _up_to_date(self, connection: sa.Connection) -> ObjectIndex:
        """Return the index with all new rows, read again if it is too old."""
        index = self._index
        if index and index.age_seconds <= _MAX_AGE_SECONDS and index.catch_up(connection):
            return index
        index = self._begin(connection)
        while index.read_page(connection):
            pass
        index.catch_up(connection)
        return index

    def _begin(self, connection: sa.Connection) -> ObjectIndex:
        return ObjectIndex(connection, self._objects, self._clock, self._randrange)

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
            .where(image_locations.c.id.in_(numbers), sa.or_(LIVE, _may_be_restored(due_before)))
        )
        rows = map(unchecked_location_row, found)
        keys = [(key_of(self._objects, row.value), row) for row in rows]
        return [(key, row) for key, row in keys if key is not None]


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
    return sa.and_(PENDING, sa.or_(pending, incomplete))
