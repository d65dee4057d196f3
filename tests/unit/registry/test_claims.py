# SPDX-License-Identifier: Apache-2.0
"""What is read out of a location's metadata."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.registry.rows import named_store


@pytest.mark.parametrize(
    ("metadata", "store"),
    [
        ('{"store": "fast"}', "fast"),
        ('{"backend": "fast"}', "fast"),
        ('{"store": "fast", "backend": "slow"}', "fast"),
        ('{"store": "", "backend": "slow"}', "slow"),
        ('{"store": null, "backend": "slow"}', "slow"),
        ('{"store": 7}', None),
        ('{"store": ["fast"]}', None),
        ('{"other": "fast"}', None),
        ("{}", None),
        ("[]", None),
        ('"store"', None),
        ("7", None),
        ("null", None),
        ("{'store': 'fast'}", None),
        ("{", None),
        ("", None),
        (None, None),
    ],
)
def test_the_store_that_metadata_names(metadata: str | None, store: str | None) -> None:
    assert named_store(metadata) == store


@given(st.text(min_size=1))
def test_any_name_is_read_as_it_was_written(name: str) -> None:
    assert named_store(json.dumps({"store": name})) == name


@given(st.text())
def test_any_text_is_metadata_or_names_no_store(text: str) -> None:
    assert named_store(text) is None or "store" in text or "backend" in text
