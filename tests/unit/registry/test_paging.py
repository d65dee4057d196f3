# SPDX-License-Identifier: Apache-2.0
"""Keyset pagination gives every row once, whatever changes between two pages."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.registry.paging import keyset_pages


class Table:
    """Rows by a key, with the number of reads."""

    def __init__(self, keys: set[int], page_rows: int) -> None:
        self.keys = keys
        self.page_rows = page_rows
        self.reads = 0

    def read(self, last: int) -> Sequence[tuple[int, str]]:
        self.reads += 1
        above = sorted(key for key in self.keys if key > last)
        return [(key, f"row {key}") for key in above[: self.page_rows]]


@given(st.sets(st.integers(0, 50)), st.integers(1, 8), st.integers(-1, 50))
def test_every_row_above_the_start_comes_once(keys: set[int], page_rows: int, start: int) -> None:
    table = Table(keys, page_rows)
    pages = list(keyset_pages(table.read, lambda row: row[0], start, page_rows))
    assert [row[0] for page in pages for row in page] == sorted(key for key in keys if key > start)
    assert all(len(page) == page_rows for page in pages[:-1])
    assert len(pages[-1]) < page_rows
    assert table.reads == len(pages)


@pytest.mark.parametrize("deleted", [{1}, {2}, {1, 2, 3}])
def test_rows_deleted_between_pages_hide_no_other(deleted: set[int]) -> None:
    table = Table({1, 2, 3, 4, 5}, 2)
    seen = []
    for page in keyset_pages(table.read, lambda row: row[0], 0, 2):
        seen += [row[0] for row in page]
        table.keys -= deleted
    assert set(seen) >= {4, 5}
    assert len(seen) == len(set(seen))


def test_nothing_is_read_before_it_is_asked_for() -> None:
    table = Table({1, 2, 3}, 1)
    pages = keyset_pages(table.read, lambda row: row[0], 0, 1)
    assert table.reads == 0
    next(pages)
    assert table.reads == 1
