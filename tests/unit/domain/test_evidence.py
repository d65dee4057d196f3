# SPDX-License-Identifier: Apache-2.0
"""What an answer of a store is evidence of: tallies by owner, and parts of a store."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evscrub.domain.evidence import Tally

owners = st.sampled_from(["a", "b", "c", None])


@given(st.integers(1, 20), st.data())
def test_owner_counts_for_at_most_its_share(limit: int, data: st.DataObject) -> None:
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
