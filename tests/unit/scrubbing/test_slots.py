# SPDX-License-Identifier: Apache-2.0
"""Worker slots and the backlog."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.scrubbing.slots import Backlog, Slots
from tests.unit.world import new_job


def fill(slots: Slots, owner: str, *, alone: bool) -> int:
    """Take all slots that an owner may have; returns their number."""
    count = 0
    while slots.has_room(owner, alone=alone):
        slots.take(owner)
        count += 1
    return count


@pytest.mark.parametrize(
    ("total", "alone", "shared"),
    [(1, 1, 1), (2, 2, 1), (3, 3, 2), (4, 3, 3), (8, 7, 7), (16, 15, 13)],
)
def test_maximum_of_one_owner(total: int, alone: int, shared: int) -> None:
    assert fill(Slots(total), "a", alone=True) == alone
    assert fill(Slots(total), "a", alone=False) == shared


def test_owners_with_equal_shares_use_all() -> None:
    for total, owners in ((16, "ab"), (16, "abcd"), (8, "abc"), (3, "abc")):
        slots = Slots(total)
        for number in range(total * 2):
            owner = owners[number % len(owners)]
            if slots.has_room(owner, alone=False):
                slots.take(owner)
        assert slots.taken >= total - (len(owners) == 2)


def test_many_owners_use_all() -> None:
    slots = Slots(16)
    for _ in range(2):
        for number in range(8):
            assert slots.has_room(str(number), alone=False)
            slots.take(str(number))
    assert slots.taken == 16
    assert not slots.has_room("x", alone=False)


def test_freed_slot_is_free() -> None:
    slots = Slots(1)
    slots.take("a")
    slots.leave("a")
    assert slots.has_room("b", alone=False)
    assert not slots.by_owner


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans()), max_size=100),
)
def test_total_is_never_exceeded(total: int, happens: list[tuple[str, bool, bool]]) -> None:
    slots = Slots(total)
    for owner, leaves, alone in happens:
        if leaves and owner in slots.by_owner:
            slots.leave(owner)
        elif slots.has_room(owner, alone=alone):
            slots.take(owner)
        assert slots.taken == sum(slots.by_owner.values()) <= total
        newcomer = slots.has_room("new", alone=False)
        assert newcomer is (slots.taken < total)


class TestBacklog:
    def test_serves_owners_round_robin(self) -> None:
        backlog = Backlog()
        for number, owner in enumerate("aaabbc"):
            backlog.push(new_job(str(number), owner))
        assert (len(backlog), backlog.owners, backlog.count("a")) == (6, 3, 3)
        taken = [backlog.pop(lambda _: True) for _ in range(7)]
        assert [job and job.image_id for job in taken] == ["0", "3", "5", "1", "4", "2", None]
        assert (len(backlog), backlog.owners) == (0, 0)

    def test_skips_owners_that_may_not_start(self) -> None:
        backlog = Backlog()
        for number, owner in enumerate("aab"):
            backlog.push(new_job(str(number), owner))
        assert backlog.turn_to(lambda owner: owner == "b")
        job = backlog.pop(lambda owner: owner == "b")
        assert job is not None
        assert job.owner == "b"
        assert backlog.pop(lambda owner: owner == "b") is None
        assert len(backlog) == 2

    def test_drains_all_or_one_owner(self) -> None:
        backlog = Backlog()
        for number, owner in enumerate("aab"):
            backlog.push(new_job(str(number), owner))
        assert [job.image_id for job in backlog.drain_owner("a")] == ["0", "1"]
        assert backlog.drain_owner("a") == []
        assert len(backlog) == 1
        assert [job.image_id for job in backlog.drain()] == ["2"]
        assert not backlog
        backlog.push(new_job("3", "a"))
        assert backlog.pop(lambda _: True) is not None
