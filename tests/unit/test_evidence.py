# SPDX-License-Identifier: Apache-2.0
"""What an answer of a store is evidence of: tallies by owner, parts of a store, the fuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.evidence import Origin, Scope, Tally
from evscrub.fuse import Fuse
from evscrub.rules import Kind, LocationRow
from evscrub.suspects import Suspects
from evscrub.work import Work
from tests.unit.world import EPOCH, NOT_FOUND, new_work

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


def missing(
    fuse: Fuse, count: int, owner: str = "o", part: str = "p", kind: Kind = Kind.PENDING
) -> list[Scope | None]:
    origin = Origin(owner, part, kind)
    return [fuse.missing(origin, of_store=True) for _ in range(count)]


class TestFuse:
    def test_one_owner_stops_that_owner(self) -> None:
        assert missing(Fuse(20), 21) == [*[None] * 19, Scope.OWNER, Scope.OWNER]

    def test_two_owners_stop_the_store(self) -> None:
        fuse = Fuse(20)
        assert missing(fuse, 15) == [None] * 15
        assert missing(fuse, 10, "other") == [*[None] * 9, Scope.STORE]

    def test_a_part_that_does_not_speak_for_the_store_stops_owners(self) -> None:
        fuse = Fuse(4)
        origins = [Origin(owner, "p") for owner in "abcdabcdabcdabcd"]
        scopes = {fuse.missing(origin, of_store=False) for origin in origins}
        assert scopes == {None, Scope.OWNER}

    def test_data_that_is_there_proves_its_own_part(self) -> None:
        fuse = Fuse(20)
        missing(fuse, 19)
        fuse.found("q")
        assert missing(fuse, 1) == [Scope.OWNER]
        fuse.found("p")
        assert missing(fuse, 19) == [None] * 19
        missing(fuse, 19, kind=Kind.STALE)
        fuse.found("q")
        assert fuse.doubts("p")

    def test_nought_believes_any_number(self) -> None:
        fuse = Fuse(0)
        assert not any(missing(fuse, 10_000))
        assert not fuse.doubts("p")

    @pytest.mark.parametrize("limit", [1, 2, 3])
    def test_a_low_limit_holds(self, limit: int) -> None:
        scopes = missing(Fuse(limit), limit)
        assert scopes[:-1] == [None] * (limit - 1)
        assert scopes[-1] is not None

    def test_claims_taken_over_decide_only_without_a_proof(self) -> None:
        fuse = Fuse(20)
        assert not any(missing(fuse, 300, "a", kind=Kind.STALE))
        assert not any(missing(fuse, 5, "b", kind=Kind.STALE))
        assert fuse.doubts("p")
        assert fuse.unproven("p", "a", of_store=True) is Scope.OWNER
        assert not any(missing(fuse, 5, "b", kind=Kind.STALE))
        assert fuse.unproven("p", "a", of_store=True) is Scope.STORE
        fuse.found("p")
        assert not fuse.doubts("p")
        assert fuse.unproven("p", "a", of_store=True) is None

    @pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.STALE])
    def test_all_others_decide_at_once(self, kind: Kind) -> None:
        assert missing(Fuse(20), 20, kind=kind)[-1] is Scope.OWNER

    def test_parts_are_bounded_and_the_fullest_stays(self) -> None:
        fuse = Fuse(20)
        missing(fuse, 19, part="main")
        for number in range(2000):
            missing(fuse, 1, "evil", str(number))
        assert len(fuse._all) == len(fuse._certain) == 256
        assert missing(fuse, 1, part="main") == [Scope.OWNER]

    def test_an_operator_begins_it_again(self) -> None:
        fuse = Fuse(20)
        missing(fuse, 19)
        fuse.clear()
        assert not any(missing(fuse, 19))


def suspect(name: str, *parts: str) -> Work:
    """A work whose data was not found in these parts of a store."""
    work = new_work(name)
    for number, part in enumerate(parts):
        row = LocationRow(number, "x", "a", "pending_delete", True, EPOCH, EPOCH)
        work.judged(row, "a", NOT_FOUND, 0.0, part)
    return work


class TestSuspects:
    def test_wait_for_their_own_part(self) -> None:
        suspects = Suspects(3)
        first, second = suspect("1", "p"), suspect("2", "q")
        suspects.add(first, 0)
        suspects.add(second, 1)
        assert len(suspects) == 2
        assert suspects.take("p") == [first]
        assert suspects.take("p") == []
        assert suspects.take_all() == [second]
        assert suspects.next_at() is None

    def test_all_of_a_part_wait_for_its_last(self) -> None:
        suspects = Suspects(3)
        suspects.add(suspect("1", "p"), 0)
        suspects.add(suspect("2", "p"), 2)
        suspects.add(suspect("3", "q"), 1)
        assert suspects.next_at() == 4
        assert list(suspects.overdue(3.9)) == []
        assert list(suspects.overdue(4)) == ["q"]
        assert sorted(suspects.overdue(5)) == ["p", "q"]

    def test_a_work_in_two_parts_needs_both_proven(self) -> None:
        work = suspect("1", "p", "q", "p")
        assert work.doubted_endpoint == "p"
        work.believe("p")
        assert work.doubted_endpoint == "q"
        assert work.settlement().gone == [0, 1, 2]
        work.doubt()
        assert (work.gone, work.left, work.not_found) == ([0, 2], [1], [0, 2])
