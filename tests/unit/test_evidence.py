# SPDX-License-Identifier: Apache-2.0
"""What an answer of a store is evidence of: tallies by owner, and parts of a store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.evidence import Tally, endpoint_of

owners = st.sampled_from(["a", "b", "c", None])


@given(st.integers(1, 20), st.data())
def test_an_owner_weighs_no_more_than_its_share(limit: int, data: st.DataObject) -> None:
    share = data.draw(st.integers(1, limit))
    added = data.draw(st.lists(owners, max_size=60))
    tally = Tally(limit, share)
    for owner in added:
        tally.add(owner)
    assert tally.total == len(added)
    assert tally.weight == sum(min(share, added.count(owner)) for owner in set(added))
    assert all(tally.of(owner) == added.count(owner) for owner in ["a", "b", "c", None])
    tally.clear()
    assert (tally.total, tally.weight, tally.of("a"), tally.is_full) == (0, 0, 0, False)


def test_a_tally_of_many_owners_is_bounded() -> None:
    tally = Tally(10_000, 1)
    for number in range(5000):
        tally.add(str(number))
    assert len(tally._by_owner) == tally.total == 1000


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("file:///var/lib/glance/images/1", "/var/lib/glance/images"),
        ("filesystem:///mnt/a/1", "/mnt/a"),
        ("s3://key:secret@host/bucket/1", "host/bucket"),
        ("s3+https://key:se/cr/et@host:8080/bucket/1", "host:8080/bucket"),
        ("s3+https://host/bucket/1", "host/bucket"),
        ("swift+https://account%3Auser:key@keystone/v3/container/1", "keystone/v3/container"),
        ("swift+config://ref1/container/1", "ref1/container"),
        ("rbd://cluster/pool/1/snap", "cluster/pool"),
        ("rbd://1", ""),
        ("cinder://1", ""),
        ("cinder://store/1", "store"),
        ("vsphere://host/folder/ds/dir/1?dcPath=/dc/x&dsName=ds", "host/folder/ds/dir"),
        ("https://host/a/b", "host/a"),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_the_part_of_a_store(url: str, part: str) -> None:
    assert endpoint_of(url) == part


@given(st.text())
def test_any_url_has_a_part(url: str) -> None:
    assert isinstance(endpoint_of(url), str)
