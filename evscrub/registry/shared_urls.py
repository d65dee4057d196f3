# SPDX-License-Identifier: Apache-2.0
"""Which locations share their data with another that still wants it: it must stay.

Glance lets an administrator give several images one location, in whatever spelling, counts them
nowhere, and has no index on URLs. So one of the objects of all live and pending locations is kept
in memory here. It only points at rows: the registry is asked by their ids what they are now.
"""

import threading
from collections.abc import Collection, Iterator
from typing import Protocol

import sqlalchemy as sa

from evscrub import location_crypt
from evscrub.clock import Clock, Moment
from evscrub.object_identity import Identity, Relation
from evscrub.registry.claims import named_store
from evscrub.registry.database import Database, retried
from evscrub.registry.object_index import ObjectIndex
from evscrub.registry.tables import image_locations, images
from evscrub.rules import PENDING_DELETE, LocationRow
from evscrub.verdict import HIDDEN, SHARED, UNDECIPHERABLE, UNTOLD, StoreNotUsableError, Verdict

_PAGE_ROWS = 5000
#: All locations are read again so often: that finds those that were changed in their place.
_READ_SECONDS = 3600.0
#: Transactions may end in another order than they got their rows' ids, so that a new row may be
#: this much below the highest one seen.
_OVERLAP = 100

_LIVE = image_locations.c.deleted == sa.false()
_PENDING = image_locations.c.status == PENDING_DELETE
#: A pending image may be restored. One that is claimed may not, and is not waited for: of several
#: that share data, the last one to be claimed finds no other and takes the data.
_WANTED = sa.or_(_LIVE, sa.and_(_PENDING, images.c.status == PENDING_DELETE))


class Objects(Protocol):
    """Tells the objects of locations; each function raises StoreNotUsableError where it cannot."""

    def index_key(self, value: str) -> str:
        """Return a text that is equal for all locations of one object, and rarely for others."""

    def identify(self, row: LocationRow) -> Identity:
        """Return a location's object."""

    def relate(self, one: Identity, other: Identity) -> Relation:
        """Say whether two locations are of the same object."""


class SharedUrls:
    """Compares objects with those of all live and pending locations."""

    def __init__(self, database: Database, objects: Objects, clock: Clock) -> None:
        self.database = database
        self._objects = objects
        self._clock = clock
        self._lock = threading.Lock()
        self._index = ObjectIndex()
        self._highest = 0
        self._read_at: Moment | None = None
        #: Whether encrypted locations were seen that could be read, and ones that could not.
        self._decrypted = self._hidden = False

    @retried
    def among(self, rows: Collection[LocationRow]) -> dict[int, Verdict]:
        """Return what holds of those rows, all claimed, whose data another location may want.

        :returns: by row id, SHARED where it is surely the same data, UNTOLD where it may be, and
            HIDDEN for all where there are encrypted locations and none can be decrypted.
        """
        rows_by_key: dict[str, list[LocationRow]] = {}
        for row in rows:
            try:
                key = self._objects.index_key(row.value)
            except StoreNotUsableError:
                continue  # it is parked for that reason, so its data stays anyway
            rows_by_key.setdefault(key, []).append(row)
        if not rows_by_key:
            return {}
        with self._lock, self.database.reading() as connection:
            self._read(connection)
            found = {number for key in rows_by_key for number in self._index.ids(key)}
            wanted = self._wanted(connection, found - {row.id for row in rows})
            hidden = self._hidden and not self._decrypted
        verdicts = {row.id: HIDDEN for row in rows} if hidden else {}
        for other in wanted:
            for row in rows_by_key.get(self._objects.index_key(other.value), ()):
                one = self._objects.identify(row)
                match self._objects.relate(one, self._objects.identify(other)):
                    case Relation.SAME:
                        verdicts[row.id] = SHARED
                    case Relation.UNTOLD:
                        verdicts.setdefault(row.id, UNTOLD)
        return verdicts

    def _read(self, connection: sa.Connection) -> None:
        """Read what is new, or all of it when that was long ago."""
        now = self._clock.moment()
        old = self._read_at is None or self._clock.since(self._read_at) > _READ_SECONDS
        # Asked for first: rows that come meanwhile are read next time too.
        highest = connection.execute(sa.select(sa.func.max(image_locations.c.id))).scalar() or 0
        if old:
            self._decrypted = self._hidden = False
            self._index, self._read_at = ObjectIndex(self._keys(connection, 0)), now
        else:
            self._index.update(self._keys(connection, self._highest - _OVERLAP))
        self._highest = highest

    def _keys(self, connection: sa.Connection, last: int) -> Iterator[tuple[int, str]]:
        """Yield live and pending locations above an id, with the keys of their objects."""
        while True:
            page = connection.execute(
                sa.select(image_locations.c.id, image_locations.c.value)
                .where(image_locations.c.id > last, sa.or_(_LIVE, _PENDING))
                .order_by(image_locations.c.id)
                .limit(_PAGE_ROWS)
            ).all()
            for number, value in page:
                try:
                    key = self._objects.index_key(value)
                except StoreNotUsableError as error:
                    if error.reason == UNDECIPHERABLE:
                        self._hidden |= location_crypt.is_encrypted(value)
                    continue
                if ":" not in value:
                    self._decrypted = True
                yield number, key
            if len(page) < _PAGE_ROWS:
                return
            last = page[-1].id

    def _wanted(self, connection: sa.Connection, numbers: Collection[int]) -> list[LocationRow]:
        """Return those of the locations whose data is wanted, and whose object can be told."""
        if not numbers:
            return []
        found = connection.execute(
            sa.select(
                image_locations.c.id,
                image_locations.c.value,
                image_locations.c.meta_data,
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
        return [row for row in rows if self._is_told(row)]

    def _is_told(self, row: LocationRow) -> bool:
        try:
            self._objects.index_key(row.value)
        except StoreNotUsableError:
            return False
        return True
