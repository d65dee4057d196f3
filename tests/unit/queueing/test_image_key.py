# SPDX-License-Identifier: Apache-2.0
"""Keys are small for canonical UUIDs and give back every id as it was written."""

import sys
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evscrub.queueing.image_key import pack, unpack

CANONICAL = "0f9e8d7c-6b5a-4938-a716-05f4e3d2c1b0"

# Texts of a UUID's length and dashes, of characters that int() knows what to do with.
ODD = "019afAFxXoObB_+- \n\N{ARABIC-INDIC DIGIT THREE}\N{MATHEMATICAL BOLD DIGIT NINE}"
lookalikes = st.builds(
    "-".join, st.tuples(*(st.text(ODD, min_size=n, max_size=n) for n in (8, 4, 4, 4, 12)))
)


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert unpack(pack(text)) == text


@given(lookalikes)
@example("0x000000-0000-0000-0000-00000000001f")
def test_what_looks_like_a_uuid_comes_back(text: str) -> None:
    assert unpack(pack(text)) == text


@given(st.uuids())
def test_a_canonical_uuid_becomes_an_integer(value: uuid.UUID) -> None:
    assert pack(str(value)) == value.int
    assert unpack(value.int) == str(value)


def test_an_integer_is_what_saves_memory() -> None:
    assert sys.getsizeof(pack(CANONICAL)) <= 48 < sys.getsizeof(CANONICAL)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(CANONICAL.upper(), id="upper case"),
        pytest.param(CANONICAL.replace("f", "F", 1), id="one letter in upper case"),
        pytest.param(CANONICAL.replace("-", ""), id="no dashes"),
        pytest.param(CANONICAL[:-1], id="too short"),
        pytest.param(CANONICAL + "0", id="too long"),
        pytest.param("{" + CANONICAL[1:-1] + "}", id="braces"),
        pytest.param("0f9e8d7-c6b5a-4938-a716-05f4e3d2c1b0", id="a dash too early"),
        pytest.param("0f9e8d7c6-b5a-4938-a716-05f4e3d2c1b0", id="a dash too late"),
        pytest.param("0f9e8d7c-6b5a-4938-a71605f4-e3d2c1b0", id="the last dash elsewhere"),
        pytest.param("0f9e8d7c-6b5a-4938-a716-05f4e3d2c1-0", id="five dashes"),
        pytest.param(
            "\N{ARABIC-INDIC DIGIT ZERO}f9e8d7c-6b5a-4938-a716-05f4e3d2c1b0", id="an Arabic digit"
        ),
        pytest.param(
            "\N{MATHEMATICAL BOLD DIGIT ZERO}f9e8d7c-6b5a-4938-a716-05f4e3d2c1b0", id="a bold digit"
        ),
        pytest.param("0_9e8d7c-6b5a-4938-a716-05f4e3d2c1b0", id="an underscore"),
        pytest.param("+f9e8d7c-6b5a-4938-a716-05f4e3d2c1b0", id="a plus"),
        pytest.param(" f9e8d7c-6b5a-4938-a716-05f4e3d2c1b0", id="a space"),
        pytest.param("0f9e8d7c-6b5a-4938-a716-05f4e3d2c1b\n", id="a line's end"),
        pytest.param("0g9e8d7c-6b5a-4938-a716-05f4e3d2c1b0", id="no hexadecimal digit"),
        pytest.param("0x9e8d7c-6b5a-4938-a716-05f4e3d2c1b0", id="a prefix"),
    ],
)
def test_anything_else_stays_a_string(text: str) -> None:
    assert pack(text) == text
