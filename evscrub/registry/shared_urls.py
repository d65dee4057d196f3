# SPDX-License-Identifier: Apache-2.0
"""Which locations share their URL with a live one: their data must stay.

Glance lets an administrator give several images one URL, and nothing in its tables counts them.
"""

from collections.abc import Callable, Collection, Iterator

import sqlalchemy as sa

from evscrub.registry.database import Database, retried
from evscrub.registry.tables import image_locations
from evscrub.rules import LocationRow
from evscrub.verdict import StoreNotUsableError

_PAGE_ROWS = 5000


class SharedUrls:
    """Compares URLs with those of all live locations.

    :param clear: gives a row's URL in the clear; raises StoreNotUsableError where it cannot.
    :param encrypted: whether rows may be encrypted, so that the database cannot compare them.
    """

    def __init__(
        self, database: Database, clear: Callable[[LocationRow], str], *, encrypted: bool
    ) -> None:
        self.database = database
        self._clear = clear
        self._encrypted = encrypted

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
        live = self._live_decrypted() if self._encrypted else self._live_among(ids_by_url)
        return {number for url in live for number in ids_by_url.get(url, ())}

    def _live_among(self, urls: Collection[str]) -> Iterator[str]:
        with self.database.reading() as connection:
            yield from connection.execute(
                sa.select(image_locations.c.value).where(
                    image_locations.c.deleted == sa.false(),
                    image_locations.c.value.in_(list(urls)),
                )
            ).scalars()

    def _live_decrypted(self) -> Iterator[str]:
        last = 0
        while True:
            with self.database.reading() as connection:
                page = connection.execute(
                    sa.select(image_locations.c.id, image_locations.c.value)
                    .where(image_locations.c.deleted == sa.false(), image_locations.c.id > last)
                    .order_by(image_locations.c.id)
                    .limit(_PAGE_ROWS)
                ).all()
            for number, value in page:
                row = LocationRow(number, value, None, "", False, None, None)
                try:
                    yield self._clear(row)
                except StoreNotUsableError:
                    continue
            if len(page) < _PAGE_ROWS:
                return
            last = page[-1].id
