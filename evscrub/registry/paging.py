# SPDX-License-Identifier: Apache-2.0
"""Keyset pagination. Pure."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

K = TypeVar("K")
R = TypeVar("R")


def keyset_pages(
    read: Callable[[K], Sequence[R]], key_of: Callable[[R], K], start: K, page_rows: int
) -> Iterator[Sequence[R]]:
    """Yield pages of rows in the order of a unique key, until one is not full.

    Each page is read from after the last key of the page before, so the database neither counts
    rows for an offset nor keeps a cursor open. A caller that waits between two pages may change or
    delete rows that it was given.

    :param read: returns the first `page_rows` rows whose key is above its argument, in key order.
    :param key_of: returns the key of a row.
    :param start: the key to start above.
    :param page_rows: rows of a full page, at least 1.
    :returns: an iterator over at least one page; the last page may be empty.
    """
    last = start
    while True:
        page = read(last)
        yield page
        if len(page) < page_rows:
            return
        last = key_of(page[-1])
