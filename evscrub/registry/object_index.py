# SPDX-License-Identifier: Apache-2.0
"""Read the objects of all live and pending locations into memory.

Glance has no index on URLs, and one object has several spellings. New rows are read at each look;
the others once, a page at a time, so that an index can be read while another one serves.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Protocol

import sqlalchemy as sa

from evscrub.domain import location_crypt
from evscrub.domain.clock import Clock
from evscrub.domain.decisions import ACTIVE, PENDING_DELETE
from evscrub.domain.object_identity import place_of
from evscrub.domain.verdict import UNDECIPHERABLE, StoreNotUsableError
from evscrub.registry.database import read_now
from evscrub.registry.paging import keyset_pages
from evscrub.registry.recent_ids import OVERLAP_SECONDS, RecentIds
from evscrub.registry.samples import Samples
from evscrub.registry.tables import bounded, image_locations
from evscrub.registry.url_index import UrlIndex

LIVE = image_locations.c.deleted == sa.false()
PENDING = image_locations.c.status == PENDING_DELETE

_PAGE_ROWS = 5000
#: Allowed skew of the clocks by which Glance's hosts stamp new rows; the sweep allows the same.
_SKEW_SECONDS = 300.0
_COLUMNS = (
    image_locations.c.id,
    bounded(image_locations.c.value),
    image_locations.c.deleted,
    image_locations.c.status,
)


class Objects(Protocol):
    """Names the objects of locations.

    Each method raises StoreNotUsableError, TypeError or ValueError if a location names no object.
    """

    def index_key(self, value: str) -> str:
        """Return a key that is equal for all locations of an object, and rarely for others."""

    def key_and_place(self, value: str) -> tuple[str, str]:
        """Return the index key of a location, and its place, which does not depend on the store."""


class ObjectIndex:
    """Ids of all live and pending locations by object, as one reading of the registry found them.

    After creation, all pages must be read by :meth:`read_page`. From then on, :meth:`catch_up`
    keeps the index up to date, but for finished rows that were changed in place, and rows whose
    transaction took longer than the overlap.

    :param randrange: draws a number from 0 to below one, for samples of live locations.
    """

    def __init__(
        self,
        connection: sa.Connection,
        objects: Objects,
        clock: Clock,
        randrange: Callable[[int], int],
    ) -> None:
        self._objects = objects
        self._clock = clock
        self._begun = clock.moment()
        self._urls = UrlIndex()
        self._live = Samples(randrange)
        #: Rows up to this id are read by page; above it, rows may still appear.
        self._floor, highest = _floor_and_highest(connection)
        self.recent = RecentIds(self._floor, highest, clock.boot())
        self._last = 0  #: highest id that was read by page
        #: Live locations that Glance has not finished: a parallel import gives them their URLs in
        #: the end (glance.async_.flows.parallel_api_image_import).
        self._unfinished: set[int] = set()
        #: Whether any encrypted location could be decrypted, and whether any could not.
        self._decrypted = self._hidden = False

    @property
    def age_seconds(self) -> float:
        """Time since the reading began."""
        return self._clock.since(self._begun)

    @property
    def hides_locations(self) -> bool:
        """Whether there are encrypted locations and none of them can be decrypted."""
        return self._hidden and not self._decrypted

    def ids(self, key: str) -> Iterator[int]:
        """Yield the ids of all locations with this index key, and rarely an id of another key."""
        return self._urls.ids(key)

    def live_ids(self, part: str) -> list[int]:
        """Return ids of a few locations in a part of a store that were live when they were read.

        :param part: see :func:`evscrub.domain.object_identity.endpoint`.
        """
        return self._live.of(place_of(part))

    def read_page(self, connection: sa.Connection) -> bool:
        """Index the next page of the older rows, which were there at creation.

        :returns: whether there may be further pages.
        """
        query = sa.select(*_COLUMNS).where(
            sa.or_(LIVE, PENDING),
            image_locations.c.id > self._last,
            image_locations.c.id <= self._floor,
        )
        page = connection.execute(query.order_by(image_locations.c.id).limit(_PAGE_ROWS)).all()
        for row in page:
            self._add(row)
            self._last = row.id
        return len(page) == _PAGE_ROWS

    def catch_up(self, connection: sa.Connection) -> bool:
        """Index new rows, and what became of unfinished ones.

        :returns: False if rows are gone, so that the registry must be read again.
        """
        self._read_unfinished(connection)
        recent = self.recent
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
        if recent.has_gone_back(highest):
            return False
        if highest < recent.highest or (count, int(total or 0)) != recent.fingerprint:
            recent.cut(highest)
            last = recent.floor
        elif highest == recent.highest:
            recent.take_in((), last, self._clock.boot())
            return True
        self._read_recent(connection, last)
        return True

    def replace(self, old: "ObjectIndex", connection: sa.Connection) -> None:
        """Take the place of another index; all pages must have been read.

        What the other one knows of recent ids tells whether rows are gone since.
        """
        for page in _recent_pages(connection, self._floor):
            for row in page:
                self._add_recent(row)
        self.recent = old.recent

    def _read_recent(self, connection: sa.Connection, last: int) -> None:
        """Index the locations above an id that are not known yet, whatever their status."""
        recent = self.recent
        again = last < recent.highest
        ids = array("Q")
        for page in _recent_pages(connection, last):
            for row in page:
                if row.id not in recent:
                    self._add_recent(row)
            ids.extend(row.id for row in page)
            if len(page) == _PAGE_ROWS and not again:  # by page, to keep few ids in memory
                recent.take_in(ids, recent.highest, self._clock.boot())
                ids = array("Q")
        recent.take_in(ids, last if again else recent.highest, self._clock.boot())

    def _read_unfinished(self, connection: sa.Connection) -> None:
        numbers = list(self._unfinished)
        for first in range(0, len(numbers), _PAGE_ROWS):
            some = numbers[first : first + _PAGE_ROWS]
            query = sa.select(*_COLUMNS).where(image_locations.c.id.in_(some), LIVE | PENDING)
            rows = connection.execute(query).all()
            self._unfinished.difference_update(some)
            for row in rows:
                self._add(row)

    def _add_recent(self, row: "sa.Row[Any]") -> None:
        """Index a location of any status, for a recent one may be set live by hand."""
        if row.wanted:
            self._add(row)
        elif (key := key_of(self._objects, row.value)) is not None:
            self._urls.add(row.id, key)

    def _add(self, row: Sequence[Any]) -> None:
        """Index a location whose data is needed, if it names an object.

        Sample its place if it is live, and record whether encrypted locations can be decrypted.
        """
        number, value, deleted, status, *_ = row
        if not deleted and status != ACTIVE:
            self._unfinished.add(number)
        try:
            if not deleted and status == ACTIVE:
                key, place = self._objects.key_and_place(value)
                self._live.add(place, number)
            else:
                key = self._objects.index_key(value)
        except StoreNotUsableError as error:
            if error.reason == UNDECIPHERABLE:
                self._hidden |= location_crypt.is_encrypted(value)
            return
        except (TypeError, ValueError):
            return
        if ":" not in value:
            self._decrypted = True
        self._urls.add(number, key)


def key_of(objects: Objects, value: str) -> str | None:
    """Return the index key of a location, or None if it names no object.

    Such a location shares no data, and must not fail other images.
    """
    try:
        return objects.index_key(value)
    except (StoreNotUsableError, TypeError, ValueError):
        return None


def _floor_and_highest(connection: sa.Connection) -> tuple[int, int]:
    """Return the id above which further rows may appear, and the highest id."""
    numbers = image_locations.c.id
    highest = connection.execute(sa.select(sa.func.max(numbers))).scalar() or 0
    first_recent = (
        sa.select(sa.func.min(numbers))
        .where(
            image_locations.c.created_at
            >= read_now(connection) - timedelta(seconds=OVERLAP_SECONDS + _SKEW_SECONDS)
        )
        .scalar_subquery()
    )
    # Not the first recent row's id: a row with a lower id may not be committed yet.
    older = sa.select(sa.func.max(numbers)).where(
        numbers < sa.func.coalesce(first_recent, highest + 1)
    )
    return min(connection.execute(older).scalar() or 0, highest), highest


def _recent_pages(connection: sa.Connection, last: int) -> Iterator[Sequence["sa.Row[Any]"]]:
    """Yield pages of the locations above an id, whatever their status."""
    query = sa.select(*_COLUMNS, sa.or_(LIVE, PENDING).label("wanted"))
    query = query.order_by(image_locations.c.id).limit(_PAGE_ROWS)

    def read(after: int) -> Sequence["sa.Row[Any]"]:
        return connection.execute(query.where(image_locations.c.id > after)).all()

    return keyset_pages(read, lambda row: int(row.id), last, _PAGE_ROWS)
