# SPDX-License-Identifier: Apache-2.0
"""Which locations share their URL with a live one: their data must stay.

Glance lets an administrator give several images one URL, and nothing in its tables counts them.
"""

from collections.abc import Callable, Collection, Iterator
from hashlib import blake2b

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
        #: Of live locations: what the row holds, and the URL in the clear.
        self._digests: dict[bytes, bytes] = {}

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
        if not self._encrypted:
            live = self._live_among(ids_by_url)
            return {number for url in live for number in ids_by_url[url]}
        ids_by_digest = {_digest(url): ids for url, ids in ids_by_url.items()}
        return {
            number for digest in self._live_digests() for number in ids_by_digest.get(digest, ())
        }

    def _live_among(self, urls: Collection[str]) -> list[str]:
        with self.database.reading() as connection:
            found: sa.ScalarResult[str] = connection.execute(
                sa.select(image_locations.c.value).where(
                    image_locations.c.deleted == sa.false(),
                    image_locations.c.value.in_(list(urls)),
                )
            ).scalars()
            # Some databases compare without case.
            return [url for url in found if url in urls]

    def _live_digests(self) -> Iterator[bytes]:
        """Digests of all live URLs; decrypting all of them each time takes longer than a claim."""
        digests: dict[bytes, bytes] = {}
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
                written = _digest(value)
                digest = self._digests.get(written)
                if digest is None:
                    digest = self._digest_clear(
                        LocationRow(number, value, None, "", False, None, None)
                    )
                digests[written] = digest
                yield digest
            if len(page) < _PAGE_ROWS:
                self._digests = digests
                return
            last = page[-1].id

    def _digest_clear(self, row: LocationRow) -> bytes:
        try:
            return _digest(self._clear(row))
        except StoreNotUsableError:
            return b""


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()
