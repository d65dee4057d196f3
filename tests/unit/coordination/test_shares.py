# SPDX-License-Identifier: Apache-2.0
"""The share of one agent, and the shares of a group over all that can happen to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from evscrub.coordination.capabilities import Published, decode, encode
from evscrub.coordination.shares import ShareKeeper
from evscrub.coordination.statistics import GroupState
from tests.unit.examples import examples

SETTLE, VALID, COUNT = 5.0, 3.0, 12.0
HALF, THIRD = Fraction(1, 2), Fraction(1, 3)
NONE = Published(Fraction(0))


def new_keeper(expected: int = 0) -> ShareKeeper:
    return ShareKeeper(SETTLE, COUNT, expected, 0.0)


def of(*shares: Fraction, consumers: int | None = None) -> tuple[Published, ...]:
    """What members with these shares publish."""
    return tuple(Published(share, consumers) for share in shares)


def settled(*others: Fraction, consumers: int | None = None) -> ShareKeeper:
    """An agent that has been with these others for long enough."""
    keeper = new_keeper()
    keeper.published(NONE, joined=True)
    for second in range(int(SETTLE) + 1):
        follow(keeper, others, float(second), consumers)
    return keeper


def follow(
    keeper: ShareKeeper, others: tuple[Fraction, ...], now: float, consumers: int | None = None
) -> None:
    while (new := keeper.see(of(*others, consumers=consumers), consumers, now)) is not None:
        keeper.published(new)


def look(
    keeper: ShareKeeper, others: list[Fraction], now: float, *, is_in_force: bool = True
) -> Fraction | None:
    """See members that do not consume; return the share to publish."""
    new = keeper.see(of(*others), None, now, is_in_force=is_in_force)
    return None if new is None else new.share


class TestMember:
    def test_nothing_is_used_before_the_group_is_complete(self) -> None:
        keeper = new_keeper()
        keeper.published(NONE, joined=True)
        for tenth in range(int(SETTLE * 10)):
            follow(keeper, (), tenth / 10)
            assert keeper.in_use == 0
        follow(keeper, (), SETTLE)
        assert keeper.in_use == 1

    def test_more_is_published_before_it_is_used(self) -> None:
        keeper = new_keeper()
        keeper.published(NONE, joined=True)
        look(keeper, [HALF], 0.0)
        assert look(keeper, [HALF], 4.0) is None
        assert look(keeper, [HALF], 8.0) == HALF
        assert keeper.in_use == 0
        keeper.published(Published(HALF))
        assert look(keeper, [HALF], 8.0) is None
        assert keeper.in_use == HALF

    def test_what_another_publishes_meanwhile_is_left_to_it(self) -> None:
        keeper = settled(HALF)
        assert look(keeper, [], 7.0) == 1
        keeper.published(Published(Fraction(1)))
        assert look(keeper, [HALF], 7.0) == HALF
        assert keeper.in_use == HALF

    def test_less_is_used_at_once(self) -> None:
        keeper = settled(HALF)
        assert look(keeper, [HALF, Fraction(0)], 6.0) == THIRD
        assert keeper.in_use == THIRD

    def test_less_is_published_only_when_it_is_in_force(self) -> None:
        keeper = settled(HALF)
        assert look(keeper, [HALF, Fraction(0)], 6.0, is_in_force=False) is None
        assert keeper.in_use == THIRD
        assert look(keeper, [HALF, Fraction(0)], 7.0) == THIRD

    def test_joiner_takes_what_is_left(self) -> None:
        assert settled(HALF, THIRD).in_use == Fraction(1, 6)

    def test_nothing_is_left_by_a_member_that_cannot_be_read(self) -> None:
        assert settled(Fraction(1)).in_use == 0

    def test_consumers_of_the_bus_count_if_they_are_more(self) -> None:
        assert settled(consumers=4).in_use == Fraction(1, 4)
        assert settled(HALF, consumers=1).in_use == HALF
        keeper = settled(HALF)
        follow(keeper, (), 7.0, 2)  # the other expired, but it still consumes
        assert keeper.in_use == HALF

    @pytest.mark.parametrize(
        ("counts", "share"),
        [
            ([None, None], THIRD),
            ([3, None], Fraction(1, 9) * 2),  # one agent is no member, and has a third
            ([3, 2], THIRD),
            ([4, 4], Fraction(1, 4)),
        ],
    )
    def test_what_members_share_is_what_consumers_leave_that_are_none(
        self, counts: list[int | None], share: Fraction
    ) -> None:
        """This one does not consume, or consumes as the last of three."""
        keeper = new_keeper()
        own = 3 if counts[0] else None
        others = [Published(Fraction(0), count) for count in counts]
        keeper.published(NONE, joined=True)
        for second in range(int(SETTLE) + 1):
            while (new := keeper.see(others, own, float(second))) is not None:
                keeper.published(new)
        assert keeper.in_use == share

    def test_each_change_of_the_count_is_published(self) -> None:
        keeper = new_keeper()
        keeper.published(NONE, joined=True)
        for consumers in (3, 4, None):
            published = Published(Fraction(0), consumers)
            assert keeper.see([], consumers, 0.0) == published
            keeper.published(published)
            assert keeper.see([], consumers, 0.0) is None

    def test_what_is_published_can_be_read(self) -> None:
        odd = Fraction(1, 999_999_937), Fraction(1, 999_999_929)
        keeper = settled(*odd, Fraction(3, 4))
        published = Published(keeper.in_use)
        assert 0.24 < keeper.in_use < 0.25
        assert decode(encode(published)) == published

    def test_share_is_lost_to_those_who_took_it_up(self) -> None:
        keeper = settled(HALF)
        keeper.published(Published(HALF), joined=True)
        follow(keeper, (Fraction(1),), 7.0)
        assert keeper.in_use == 0

    def test_frozen_member_begins_as_a_new_one(self) -> None:
        keeper = settled(HALF)
        woken = 5.0 + SETTLE + 0.1
        follow(keeper, (HALF,), woken)
        assert keeper.in_use == 0
        follow(keeper, (HALF,), woken + SETTLE)
        assert keeper.in_use == HALF

    def test_unanswered_publication_is_repeated(self) -> None:
        keeper = settled(HALF)
        keeper.away(None, 6.0)
        assert look(keeper, [HALF], 7.0) == HALF


def stay_away(keeper: ShareKeeper, consumers: int | None, start: float, seconds: float) -> None:
    """Fail once a second, from `start` until `seconds` later."""
    for second in range(int(seconds) + 1):
        keeper.away(consumers, start + second)


class TestAway:
    def test_last_share_is_kept(self) -> None:
        keeper = settled(HALF)
        for second in range(6, 1000):
            keeper.away(None, float(second))
        assert keeper.in_use == HALF
        assert keeper.state is GroupState.AWAY

    def test_share_is_lowered_for_more_consumers_and_never_raised(self) -> None:
        keeper = settled(HALF)
        for consumers, share in [(2, HALF), (3, THIRD), (2, THIRD), (None, THIRD), (1, THIRD)]:
            keeper.away(consumers, 10.0)
            assert keeper.in_use == share

    def test_share_is_not_kept_by_an_agent_that_was_frozen(self) -> None:
        keeper = settled(HALF)
        keeper.away(None, 5.0 + SETTLE + 0.1)
        assert keeper.in_use == 0

    def test_share_is_not_raised_right_after_it(self) -> None:
        keeper = settled(HALF)
        keeper.away(None, 6.0)
        follow(keeper, (), 7.0)
        assert keeper.in_use == HALF
        follow(keeper, (), 9.0)
        follow(keeper, (), 7.0 + SETTLE)
        assert keeper.in_use == 1

    @pytest.mark.parametrize(("expected", "consumers"), [(0, 3), (3, None), (3, 2), (2, 3)])
    def test_new_agent_waits_until_the_others_count_it(
        self, expected: int, consumers: int | None
    ) -> None:
        keeper = new_keeper(expected)
        stay_away(keeper, consumers, 100.0, COUNT - 1)
        assert keeper.in_use == 0
        stay_away(keeper, consumers, 100.0 + COUNT, 0)
        assert keeper.in_use == THIRD
        assert keeper.state is GroupState.JOINING

    def test_new_agent_waits_again_when_others_come(self) -> None:
        keeper = new_keeper()
        stay_away(keeper, 1, 0.0, COUNT - 1)
        stay_away(keeper, 3, COUNT, COUNT - 1)
        assert keeper.in_use == 0
        stay_away(keeper, 3, 2 * COUNT, 0)
        assert keeper.in_use == THIRD

    def test_agent_that_was_frozen_waits_again(self) -> None:
        keeper = new_keeper(3)
        keeper.away(None, 0.0)
        keeper.published(NONE, joined=True)
        for second in range(1, 101):
            follow(keeper, (HALF,), float(second))
        keeper.away(None, 100.0 + SETTLE + 1)
        assert keeper.in_use == 0

    def test_new_agent_that_knows_nothing_waits(self) -> None:
        keeper = new_keeper()
        keeper.away(3, 0.0)
        keeper.away(None, 11.0)
        keeper.away(3, 12.0)  # the count begins again
        assert keeper.in_use == 0
        for hour in range(100):
            keeper.away(None, hour * 3600.0)
        assert keeper.in_use == 0


@dataclass
class Simulated:
    """An agent in the simulated group."""

    keeper: ShareKeeper
    step: Iterator[None] | None = None
    began: float = -1e9  #: of the last attempt
    is_cut_off: bool = False  #: from the coordinator
    is_frozen: bool = False
    beats: int = 0
    in_force: Fraction = field(default_factory=Fraction)


BEAT, MEMBERSHIP = 1.0, 15.0


class Group(RuleBasedStateMachine):
    """Agents, a coordinator that loses things, and a bus that counts those who run.

    The steps of the agents are interleaved in any order; only the time between two attempts of an
    agent that is not frozen is bounded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.agents: dict[str, Simulated] = {}
        self.entries: dict[str, tuple[Published, float]] = {}  # published, and renewed at
        self.is_up = True
        self.counts_bus = False

    @initialize(count=st.integers(1, 3), counts_bus=st.booleans())
    def start(self, count: int, counts_bus: bool) -> None:
        self.counts_bus = counts_bus
        for _ in range(count):
            self.start_agent()

    @rule()
    def start_agent(self) -> None:
        if len(self.agents) < 5:
            name = f"a{len(self.agents)}"
            self.agents[name] = Simulated(ShareKeeper(SETTLE, COUNT, 0, self.now))

    @rule(number=st.integers(0, 4), steps=st.integers(1, 4))
    def run_agent(self, number: int, steps: int) -> None:
        """Run one agent some steps of its attempt."""
        for _ in range(steps):
            self._step(f"a{number}")

    @rule(seconds=st.floats(0.1, 1.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for name, agent in self.agents.items():
            while not agent.is_frozen and self.now - agent.began > BEAT:
                self._step(name)

    @rule()
    def pass_much_time(self) -> None:
        for _ in range(20):
            self.pass_time(1.0)

    @rule(number=st.integers(0, 4), seconds=st.integers(1, 40))
    def freeze(self, number: int, seconds: int) -> None:
        agent = self.agents.get(f"a{number}")
        if agent is not None:
            agent.is_frozen = True
            for _ in range(seconds):
                self.pass_time(1.0)
            agent.is_frozen = False

    @rule(number=st.integers(0, 4))
    def kill(self, number: int) -> None:
        self.agents[f"a{number}"] = Simulated(ShareKeeper(SETTLE, COUNT, 0, self.now))
        self.entries = {n: e for n, e in self.entries.items() if n != f"a{number}"}

    @rule(number=st.integers(0, 4))
    def cut_off(self, number: int) -> None:
        """Cut one agent off from the coordinator alone; only the bus can tell the others."""
        agent = self.agents.get(f"a{number}")
        if agent is not None and self.counts_bus:
            agent.is_cut_off = not agent.is_cut_off

    @rule()
    def stop_coordinator(self) -> None:
        self.is_up = not self.is_up

    @rule()
    def lose_everything(self) -> None:
        self.entries.clear()

    @invariant()
    def never_more_than_the_whole(self) -> None:
        used = [
            agent.in_force
            for agent in self.agents.values()
            if not agent.is_frozen and self.now - agent.began < VALID
        ]
        assert sum(used) <= 1

    def _step(self, name: str) -> None:
        agent = self.agents.get(name)
        if agent is None or agent.is_frozen:
            return
        if agent.step is None:
            agent.step = self._attempt(name, agent)
        try:
            next(agent.step)
        except StopIteration:
            agent.step = None

    def _attempt(self, name: str, agent: Simulated) -> Iterator[None]:
        keeper, began = agent.keeper, self.now
        if not self._answers(agent):
            keeper.away(self._consumers(), self.now)
        else:
            published = Published(keeper.in_use, self._consumers())
            if name not in self._present():
                self.entries[name] = published, self.now
                keeper.published(published, joined=True)
            self.entries[name] = self.entries[name][0], self.now
            yield
            for _ in range(4):
                if not self._answers(agent):
                    keeper.away(self._consumers(), self.now)
                    break
                others = [e[0] for n, e in self._present().items() if n != name]
                new = keeper.see(others, self._consumers(), self.now)
                if new is None:
                    break
                agent.in_force = keeper.in_use
                yield
                if not self._answers(agent) or name not in self.entries:
                    keeper.away(self._consumers(), self.now)
                    break
                self.entries[name] = new, self.entries[name][1]
                keeper.published(new)
                yield
        agent.began, agent.in_force = began, keeper.in_use

    def _answers(self, agent: Simulated) -> bool:
        return self.is_up and not agent.is_cut_off

    def _present(self) -> dict[str, tuple[Published, float]]:
        return {n: e for n, e in self.entries.items() if self.now - e[1] < MEMBERSHIP}

    def _consumers(self) -> int | None:
        return len(self.agents) if self.counts_bus else None


Group.TestCase.settings = settings(max_examples=examples(40), stateful_step_count=30)
TestGroup = Group.TestCase
