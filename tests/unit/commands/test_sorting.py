# SPDX-License-Identifier: Apache-2.0
"""Sorting any number of rows as the OpenStack client sorts them."""

import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.commands.sorting import SortError, in_order
from evscrub.commands.table_output import SizeBytes, Value

NOW = datetime(2026, 5, 1, 12, 0, 0)

Row = tuple[str | None, int | None, int]

_texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=3)
_rows = st.lists(st.tuples(_texts, st.none() | st.integers(-3, 3), st.integers(0, 3)), max_size=30)


def cliff_order(rows: list[Row], indexes: list[int], *, reverse: bool) -> list[Row]:
    """Sort as ``cliff.lister`` does: stably, by the least significant column first."""
    for index in reversed(indexes):
        rows = sorted(rows, key=lambda row: (row[index] is None, row[index]), reverse=reverse)
    return rows


@given(_rows, st.permutations([0, 1]), st.booleans())
def test_rows_are_in_the_order_that_cliff_gives_them(
    rows: list[Row], indexes: list[int], reverse: bool
) -> None:
    keys: list[Callable[[Row], Value]] = [lambda row: row[0], lambda row: row[1]]
    found = in_order(
        rows,
        [keys[index] for index in indexes],
        ties=[lambda row: row[2]],
        descending=reverse,
    )
    by_ties = sorted(rows, key=lambda row: row[2])
    assert list(found) == cliff_order(by_ties, indexes, reverse=reverse)


@pytest.mark.parametrize(
    "values",
    [
        [NOW, NOW + timedelta(microseconds=1), NOW + timedelta(days=40_000)],
        [timedelta(days=-3), timedelta(seconds=-1), timedelta(0), timedelta(days=2)],
        [(), ("a",), ("a", "b"), ("b",)],
        [SizeBytes(0), SizeBytes(9), SizeBytes(10), SizeBytes(1 << 62)],
    ],
)
def test_values_of_each_type_are_sorted_by_what_they_mean(values: list[Value]) -> None:
    last: list[Value] = [*values, None]
    assert list(in_order(reversed(last), [lambda value: value])) == last
    assert list(in_order(last, [lambda value: value], descending=True)) == last[::-1]


def test_a_text_that_is_not_unicode_is_sorted_too() -> None:
    assert set(in_order(["\udcff", "a"], [lambda text: text])) == {"\udcff", "a"}


def test_an_error_while_rows_are_read_is_the_reader_s() -> None:
    def rows() -> Iterator[str]:
        yield "a"
        raise LookupError("the database went away")

    with pytest.raises(LookupError, match="went away"):
        list(in_order(rows(), [lambda text: text]))


def test_a_temporary_file_without_room_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = sqlite3.connect

    def small(*arguments: object, **named: object) -> sqlite3.Connection:
        connection = real(*arguments, **named)  # type: ignore[call-overload] # passed on
        connection.execute("PRAGMA max_page_count = 2")
        return connection  # type: ignore[no-any-return] # of the real function

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(SortError, match="full: set TMPDIR"):
        list(in_order(map(str, range(10_000)), [lambda text: text]))
