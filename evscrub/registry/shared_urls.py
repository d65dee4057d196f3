# SPDX-License-Identifier: Apache-2.0
"""Which locations share their URL with another whose data is still wanted: it must stay.

Glance lets an administrator give several images one URL, counts them nowhere, and has no index on
URLs. So one of all live and pending locations is kept in memory here. It only points at rows: the
registry is asked by their ids what they are now.
"""

import threading
from array import array
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta

import sqlalchemy as sa

from evscrub.clock import Clock, Moment
from evscrub.registry.causal import caught_up
from evscrub.registry.database import Database, read_now, retried
from evscrub.registry.recent_ids import OVERLAP_SECONDS, RecentIds
from evscrub.registry.tables import image_locations, images
from evscrub.registry.url_index import UrlIndex
from evscrub.rules import PENDING_DELETE, LocationRow
from evscrub.verdict import StoreNotUsableError

_PAGE_ROWS = 5000
#: All locations are read again so often: that finds URLs that were changed in place, and rows whose
#: transaction took longer than the overlap.
_READ_SECONDS = 3600.0
#: How far the clocks may be off by which Glance's hosts stamp new rows; the sweep allows as much.
_SKEW_SECONDS = 300.0

_LIVE = image_locations.c.deleted == sa.false()
_PENDING = image_locations.c.status == PENDING_DELETE
#: A pending image may be restored. One that is claimed may not, and is not waited for: of several
#: that share a URL, the last one to be claimed finds no other and takes the data.
_WANTED = sa.or_(_LIVE, sa.and_(_PENDING, images.c.status == PENDING_DELETE))


class SharedUrls:
    """Compares URLs with those of all live and pending locations.

    :param clear: gives a row's URL in the clear; raises StoreNotUsableError where it cannot.
    """

    def __init__(
        self, database: Database, clear: Callable[[LocationRow], str], clock: Clock
    ) -> None:
        self.database = database
        self._clear = clear
        self._clock = clock
        self._lock = threading.Lock()
        self._index = UrlIndex()
        self._recent = RecentIds(0, 0, clock.boot())
        self._read_at: Moment | None = None

    @retried
    def among(self, rows: Collection[LocationRow]) -> set[int]:
        """Return the ids of those rows, all claimed, whose data another location wants."""
        ids_by_url: dict[str, list[int]] = {}
        for row in rows:
            url = self._try_clear(row)
            if url is not None:  # else it is parked for that reason, so its data stays anyway
                ids_by_url.setdefault(url, []).append(row.id)
        if not ids_by_url:
            return set()
        with self._lock, caught_up(self.database) as connection:
            self._read(connection)
            found = {number for url in ids_by_url for number in self._index.ids(url)}
            urls = self._wanted_urls(connection, found - {row.id for row in rows})
        return {number for url in urls for number in ids_by_url.get(url, ())}

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
        self._index = UrlIndex(self._urls(connection, 0))
        self._recent, self._read_at = recent, now
        return recent

    def _read_recent(self, connection: sa.Connection, recent: RecentIds, last: int) -> None:
        """Index locations above an id, whatever their status, as far as they are not known."""
        query = sa.select(image_locations.c.id, image_locations.c.value)
        query = query.order_by(image_locations.c.id).limit(_PAGE_ROWS)
        again = last < recent.highest
        ids = array("Q")
        start, full = last, True
        while full:
            page = connection.execute(query.where(image_locations.c.id > start)).all()
            full = len(page) == _PAGE_ROWS
            start = page[-1].id if page else start
            new = [(row.id, self._try_clear(_row(*row))) for row in page if row.id not in recent]
            self._index.update((number, url) for number, url in new if url is not None)
            ids.extend(row.id for row in page)
            if full and not again:  # known at once, many ids take no memory
                recent.take_in(ids, recent.highest, self._clock.boot())
                ids = array("Q")
        recent.take_in(ids, last if again else recent.highest, self._clock.boot())

    def _urls(self, connection: sa.Connection, last: int) -> Iterator[tuple[int, str]]:
        """Yield live and pending locations above an id, with their URLs."""
        while True:
            page = connection.execute(
                sa.select(image_locations.c.id, image_locations.c.value)
                .where(image_locations.c.id > last, sa.or_(_LIVE, _PENDING))
                .order_by(image_locations.c.id)
                .limit(_PAGE_ROWS)
            ).all()
            for number, value in page:
                url = self._try_clear(_row(number, value))
                if url is not None:
                    yield number, url
            if len(page) < _PAGE_ROWS:
                return
            last = page[-1].id

    def _wanted_urls(self, connection: sa.Connection, numbers: Collection[int]) -> set[str]:
        """The URLs of those locations whose data is wanted."""
        if not numbers:
            return set()
        found = connection.execute(
            sa.select(image_locations.c.id, image_locations.c.value)
            .join(images, images.c.id == image_locations.c.image_id, isouter=True)
            .where(image_locations.c.id.in_(numbers), _WANTED)
        )
        urls = (self._try_clear(_row(number, value)) for number, value in found)
        return {url for url in urls if url is not None}

    def _try_clear(self, row: LocationRow) -> str | None:
        try:
            return self._clear(row)
        except (StoreNotUsableError, TypeError, ValueError):
            # A row that is no URL at all shares no data, and is nobody else's trouble.
            return None


def _row(number: int, value: str) -> LocationRow:
    return LocationRow(number, value, None, "", False, None, None)
