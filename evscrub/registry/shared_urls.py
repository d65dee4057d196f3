# SPDX-License-Identifier: Apache-2.0
"""Which locations share their URL with another whose data is still wanted: it must stay.

Glance lets an administrator give several images one URL, counts them nowhere, and has no index on
URLs. So one of all live and pending locations is kept in memory here. It only points at rows: the
registry is asked by their ids what they are now.
"""

import threading
from collections.abc import Callable, Collection, Iterator

import sqlalchemy as sa

from evscrub.clock import Clock, Moment
from evscrub.registry.database import Database, retried
from evscrub.registry.tables import image_locations, images
from evscrub.registry.url_index import UrlIndex
from evscrub.rules import PENDING_DELETE, LocationRow
from evscrub.verdict import StoreNotUsableError

_PAGE_ROWS = 5000
#: All locations are read anew so often: that finds URLs that were changed in their place.
_READ_SECONDS = 3600.0
#: Transactions may end in another order than they got their rows' ids, so that a new row may be
#: this much below the highest one seen.
_OVERLAP = 100

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
        self._highest = 0
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
        with self._lock, self.database.reading() as connection:
            self._read(connection)
            found = {number for url in ids_by_url for number in self._index.ids(url)}
            urls = self._wanted_urls(connection, found - {row.id for row in rows})
        return {number for url in urls for number in ids_by_url.get(url, ())}

    def _read(self, connection: sa.Connection) -> None:
        """Read what is new, or all of it when that was long ago."""
        now = self._clock.moment()
        old = self._read_at is None or self._clock.since(self._read_at) > _READ_SECONDS
        # Asked for first: rows that come meanwhile are read next time too.
        highest = connection.execute(sa.select(sa.func.max(image_locations.c.id))).scalar() or 0
        if old:
            self._index, self._read_at = UrlIndex(self._urls(connection, 0)), now
        else:
            self._index.update(self._urls(connection, self._highest - _OVERLAP))
        self._highest = highest

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
        except StoreNotUsableError:
            return None


def _row(number: int, value: str) -> LocationRow:
    return LocationRow(number, value, None, "", False, None, None)
