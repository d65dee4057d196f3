# SPDX-License-Identifier: Apache-2.0
"""Which locations share their URL with a live one: their data must stay.

Glance lets an administrator give several images one URL, counts them nowhere, and has no index on
URLs. So one of the live ones is kept in memory here. It only points at rows: the registry is asked
by their ids whether they are live and have that URL.
"""

import threading
from collections.abc import Callable, Collection, Iterable

import sqlalchemy as sa

from evscrub.clock import Clock, Moment
from evscrub.registry.database import Database, retried
from evscrub.registry.tables import image_locations
from evscrub.rules import LocationRow
from evscrub.verdict import StoreNotUsableError

_PAGE_ROWS = 5000
#: All live locations are read anew once the last reading is so many times as old as it took: that
#: finds what was restored or changed in its place, for a twentieth of the time at most.
_REST = 20
#: No longer than this, though: a frozen host or a changed clock makes a reading look long.
_REST_SECONDS = 300.0
#: Transactions may end in another order than they got their rows' ids, so that a new row may be
#: this much below the highest one seen.
_OVERLAP = 100


class SharedUrls:
    """Compares URLs with those of all live locations.

    :param clear: gives a row's URL in the clear; raises StoreNotUsableError where it cannot.
    :param encrypted: whether rows may be encrypted, so that equal URLs are written differently.
    """

    def __init__(
        self,
        database: Database,
        clear: Callable[[LocationRow], str],
        clock: Clock,
        *,
        encrypted: bool,
    ) -> None:
        self.database = database
        self._clear = clear
        self._clock = clock
        self._encrypted = encrypted
        self._lock = threading.Lock()
        self._live = _Ids()
        #: Hashes of URLs in the clear by those of what the rows hold: decrypting takes long.
        self._hashes: dict[int, int | None] = {}
        self._highest = 0
        self._read_at: Moment | None = None
        self._took_seconds = 0.0

    @retried
    def among(self, rows: Collection[LocationRow]) -> set[int]:
        """Return the ids of those rows whose URL a live location has too."""
        ids_by_url: dict[str, list[int]] = {}
        for row in rows:
            try:
                ids_by_url.setdefault(self._clear(row), []).append(row.id)
            except StoreNotUsableError:
                continue  # parked for that reason, so its data stays anyway
        if not ids_by_url:
            return set()
        with self._lock, self.database.reading() as connection:
            self._read(connection)
            hits = {number for url in ids_by_url for number in self._live.get(hash(url))}
            live = self._live_urls(connection, hits)
        return {number for url in live for number in ids_by_url.get(url, ())}

    def _read(self, connection: sa.Connection) -> None:
        """Read what is new, or all of it when that was long ago."""
        now = self._clock.moment()
        rest_seconds = min(_REST * self._took_seconds, _REST_SECONDS)
        rested = self._read_at is None or self._clock.since(self._read_at) > rest_seconds
        if not rested:
            self._highest = self._add(connection, self._live, self._hashes, self._highest)
            return
        # Asked for first: rows that come meanwhile are read next time.
        highest = connection.execute(sa.select(sa.func.max(image_locations.c.id))).scalar() or 0
        live, hashes = _Ids(), dict[int, int | None]()
        self._add(connection, live, hashes, 0)
        self._live, self._hashes, self._highest = live, hashes, highest
        self._read_at, self._took_seconds = now, self._clock.since(now)

    def _add(
        self, connection: sa.Connection, live: "_Ids", hashes: dict[int, int | None], highest: int
    ) -> int:
        """Add live locations from somewhat below this id on; returns the highest one then."""
        last = highest - _OVERLAP
        while True:
            page = connection.execute(
                sa.select(image_locations.c.id, image_locations.c.value)
                .where(image_locations.c.deleted == sa.false(), image_locations.c.id > last)
                .order_by(image_locations.c.id)
                .limit(_PAGE_ROWS)
            ).all()
            for number, value in page:
                url_hash = self._hash(value, hashes) if self._encrypted else hash(value)
                if url_hash is not None:
                    live.add(url_hash, number)
                last = number
            if len(page) < _PAGE_ROWS:
                return max(highest, last)

    def _hash(self, value: str, hashes: dict[int, int | None]) -> int | None:
        written = hash(value)
        if written in hashes:
            return hashes[written]
        if written in self._hashes:
            found = self._hashes[written]
        else:
            url = self._try_clear(0, value)
            found = None if url is None else hash(url)
        hashes[written] = found
        return found

    def _live_urls(self, connection: sa.Connection, numbers: Collection[int]) -> set[str]:
        """The URLs of those locations that are live."""
        if not numbers:
            return set()
        found = connection.execute(
            sa.select(image_locations.c.id, image_locations.c.value).where(
                image_locations.c.id.in_(numbers), image_locations.c.deleted == sa.false()
            )
        )
        urls = (self._try_clear(number, value) for number, value in found)
        return {url for url in urls if url is not None}

    def _try_clear(self, number: int, value: str) -> str | None:
        try:
            return self._clear(LocationRow(number, value, None, "", False, None, None))
        except StoreNotUsableError:
            return None


class _Ids:
    """Ids of locations by the hash of their URL; nearly all have one, which needs no set."""

    def __init__(self) -> None:
        self._first: dict[int, int] = {}
        self._more: dict[int, set[int]] = {}

    def add(self, url_hash: int, number: int) -> None:
        if self._first.setdefault(url_hash, number) != number:
            self._more.setdefault(url_hash, set()).add(number)

    def get(self, url_hash: int) -> Iterable[int]:
        if url_hash not in self._first:
            return ()
        return self._first[url_hash], *self._more.get(url_hash, ())
