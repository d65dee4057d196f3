# SPDX-License-Identifier: Apache-2.0
"""The bare loop: SQL in batches and unlink, by the database's driver alone; the limit.

With ``--least`` it sends as little as marks the images rightly: a page, a claim, an end. Without,
it sends each statement that evscrub sends for the same images, its checks included.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from tests.bench.peers.saying import limit, say

_LOOK_SIZE = 500
_PAGE_SIZE = 1000
_IMAGE = "id, owner, size, status, deleted, deleted_at"
_LOCATION = "image_id, id, value, meta_data, status, deleted, deleted_at, updated_at"
_SCHEME = "file://"

Rows = list[tuple[Any, ...]]


class Bare:
    """A connection, and what the two kinds of loop share.

    :param batch_size: images a transaction.
    """

    def __init__(self, url: str, batch_size: int) -> None:
        engine = sa.create_engine(url)
        postgresql = engine.dialect.name == "postgresql"
        self.batch_size = batch_size
        self.true = "true" if postgresql else "1"
        self.false = "false" if postgresql else "0"
        self.clock = "timezone('UTC', clock_timestamp())" if postgresql else "UTC_TIMESTAMP(6)"
        self.done = 0
        self._connection: Any = engine.raw_connection()
        self._cursor = self._connection.cursor()
        if not postgresql:
            self._cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")

    def read(self, statement: str, *values: object) -> Rows:
        self._cursor.execute(statement, values)
        return list(self._cursor.fetchall())

    def write(self, statement: str, *values: object) -> None:
        self._cursor.execute(statement, values)

    def commit(self) -> None:
        self._connection.commit()

    def pages(self, size: int) -> Iterator[list[str]]:
        """Ids of pending images, page by page."""
        last = ""
        while True:
            rows = self.read(
                f"SELECT id, owner, deleted_at FROM images WHERE deleted = {self.true}"
                " AND status = 'pending_delete' AND id > %s"
                f" AND deleted_at <= {self.clock} ORDER BY id LIMIT {size}",
                last,
            )
            self.commit()
            if not rows:
                return
            yield [row[0] for row in rows]
            last = rows[-1][0]

    def unlink(self, rows: Rows) -> None:
        for row in rows:
            os.unlink(row[2].removeprefix(_SCHEME))  # noqa: PTH108 - the limit is what is sought

    def finish(self, rows: Rows) -> None:
        numbers = [row[1] for row in rows]
        self.write(
            "UPDATE image_locations SET status = 'deleted',"
            f" deleted_at = {self.clock}, updated_at = {self.clock}"
            f" WHERE id IN ({_marks(numbers)}) AND status = 'pending_delete'",
            *numbers,
        )
        self.commit()
        self.done += len(rows)

    def run_least(self) -> None:
        """Send as little as marks the images rightly."""
        for ids in self.pages(self.batch_size):
            marks = _marks(ids)
            self.write(
                f"UPDATE images SET status = 'deleted', updated_at = {self.clock}"
                f" WHERE id IN ({marks}) AND status = 'pending_delete'",
                *ids,
            )
            rows = self.read(
                f"SELECT {_LOCATION} FROM image_locations WHERE image_id IN ({marks})", *ids
            )
            self.commit()
            self.unlink(rows)
            self.finish(rows)

    def run_same(self) -> None:
        """Send each statement that evscrub sends."""
        for page in self.pages(_PAGE_SIZE):
            for looked in _parts(page, _LOOK_SIZE):
                self._look(looked)
                for ids in _parts(looked, self.batch_size):
                    rows = self._claim(ids)
                    self.unlink(rows)
                    self.read(f"SELECT {self.clock}")
                    self.finish(rows)

    def _look(self, ids: list[str]) -> None:
        self.read(f"SELECT {self.clock}")
        self.read(f"SELECT {_IMAGE} FROM images WHERE id IN ({_marks(ids)})", *ids)
        self.read(
            f"SELECT {_LOCATION} FROM image_locations WHERE image_id IN ({_marks(ids)})"
            " ORDER BY id",
            *ids,
        )
        self.commit()

    def _claim(self, ids: list[str]) -> Rows:
        marks = _marks(ids)
        images = self.read(
            f"SELECT {_IMAGE} FROM images WHERE id IN ({marks}) FOR UPDATE SKIP LOCKED", *ids
        )
        claimed = [row[0] for row in images]
        rows = self.read(
            f"SELECT {_LOCATION} FROM image_locations WHERE image_id IN ({marks})"
            " ORDER BY id FOR UPDATE",
            *claimed,
        )
        now = self.read(f"SELECT {self.clock}")[0][0].replace(microsecond=0)
        numbers = [row[1] for row in rows]
        self.write(
            "UPDATE images SET status = 'deleted', updated_at = %s"
            f" WHERE id IN ({marks}) AND status IN ('pending_delete', 'deleted')",
            now,
            *claimed,
        )
        self.write(
            f"UPDATE image_locations SET updated_at = %s WHERE id IN ({_marks(numbers)})",
            now,
            *numbers,
        )
        self.commit()
        urls = [row[2] for row in rows]
        self.read(
            f"SELECT value FROM image_locations WHERE deleted = {self.false}"
            f" AND value IN ({_marks(urls)})",
            *urls,
        )
        self.commit()
        return rows


def _marks(values: list[Any]) -> str:
    return ", ".join(["%s"] * len(values))


def _parts(values: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", required=True)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--least", action="store_true")
    parser.add_argument("--limit", type=int, default=600, help="seconds until it ends itself")
    arguments = parser.parse_args()
    limit(arguments.limit)
    bare = Bare(arguments.database, arguments.batch_size)
    run: Callable[[], None] = bare.run_least if arguments.least else bare.run_same
    say("begin")
    run()
    say("end", images=bare.done)


if __name__ == "__main__":
    main()
