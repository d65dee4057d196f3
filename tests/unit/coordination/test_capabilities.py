# SPDX-License-Identifier: Apache-2.0
"""What members publish to each other."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.coordination import capabilities

parts = st.fractions(0, 1, max_denominator=10**9 - 1)


@given(parts)
def test_what_is_published_is_read(share: Fraction) -> None:
    assert capabilities.decode(capabilities.encode(share)) == share


@given(parts)
def test_bytes_are_read_too(share: Fraction) -> None:
    written = {k.encode(): v.encode() for k, v in capabilities.encode(share).items()}
    assert capabilities.decode(written) == share


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
    assert capabilities.decode(written) is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary(), inner),
)


@given(anything | st.fixed_dictionaries({"share": anything}))
def test_whatever_is_written_is_a_share_or_none(written: object) -> None:
    share = capabilities.decode(written)
    assert share is None or 0 <= share <= 1
