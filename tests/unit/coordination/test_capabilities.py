# SPDX-License-Identifier: Apache-2.0
"""What members publish to each other."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.coordination.capabilities import Published, decode, encode

anything_published = st.builds(
    Published,
    st.fractions(0, 1, max_denominator=10**9 - 1),
    st.none() | st.integers(0, 10**9 - 1),
)


@given(anything_published)
def test_what_is_published_is_read(published: Published) -> None:
    assert decode(encode(published)) == published


@given(anything_published)
def test_bytes_are_read_too(published: Published) -> None:
    written = {k.encode(): v.encode() for k, v in encode(published).items()}
    assert decode(written) == published


@pytest.mark.parametrize("consumers", [None, 3, "", "3.0", "-3", " 3", "३", "9" * 5000, b"\xff"])
def test_any_other_count_is_none(consumers: object) -> None:
    assert decode({"share": "1/3", "consumers": consumers}) == Published(Fraction(1, 3))


@pytest.mark.parametrize(
    "written",
    [
        None,
        b"",
        "1/3",
        [],
        {},
        {"share": None},
        {"share": 0.5},
        {"share": ""},
        {"share": "1"},
        {"share": "4/3"},
        {"share": "-1/3"},
        {"share": "1/0"},
        {"share": "0/0"},
        {"share": "1/3 "},
        {"share": "१/३"},
        {"share": "1/" + "9" * 5000},
        {"share": b"\xff/3"},
        {"weight": 1},
    ],
)
def test_anything_else_is_not_a_share(written: object) -> None:
    assert decode(written) is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary(), inner),
)


@given(
    anything
    | st.fixed_dictionaries({"share": anything | st.just("1/3")}, optional={"consumers": anything})
)
def test_whatever_is_written_is_a_share_or_none(written: object) -> None:
    published = decode(written)
    assert published is None or 0 <= published.share <= 1
