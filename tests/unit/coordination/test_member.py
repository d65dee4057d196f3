# SPDX-License-Identifier: Apache-2.0
"""An agent's membership, with a coordinator that only says what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from evscrub.coordination import member
from evscrub.coordination.capabilities import Published
from evscrub.coordination.coordinator import CoordinatorAwayError, Seen
from evscrub.coordination.member import GroupMember, GroupSettings
from evscrub.coordination.statistics import GroupState
from evscrub.domain.clock import Clock
from evscrub.flow_control.share import ShareGate

SETTINGS = GroupSettings("file:///nowhere", "evscrub.test", 1.0, 30, 0)
HALF = Fraction(1, 2)


class Site:
    """A member, its clocks, and what its coordinator says and was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, settings: GroupSettings = SETTINGS) -> None:
        self.now = 1000.0
        self.published: list[Fraction] = []
        self.others: dict[str, Fraction | None] = {"other": HALF}
        self.joins = True  #: whether the next heartbeat has to join
        self.fault: Callable[[], Any] | None = None
        self.used: list[Fraction] = []
        self.keeps = True
        self.reconnects = self.left = 0
        self.member_id = "me"
        monkeypatch.setattr(member, "Coordinator", lambda *_: self)
        monkeypatch.setattr("anyio.from_thread.run_sync", _run)
        clock = Clock(lambda: self.now, lambda: self.now)
        self.gate = ShareGate(clock)
        self.consumers: int | None = None
        self.counts: list[int | None] = []  #: published with each share
        self.member: Any = GroupMember(
            settings, clock, self.gate, lambda: self.consumers, self._use
        )
        no_loop: Any = None
        self.member._token = no_loop

    def beats(self, count: int) -> None:
        for _ in range(count):
            self.member._beat()
            self.now += 1

    def _use(self) -> bool:
        self.used.append(self.gate.part)
        return self.keeps

    # -- as the coordinator

    def beat(self, published: Published) -> Seen:
        if self.fault is not None:
            self.fault()
        joined, self.joins = self.joins, False
        if joined:
            self._note(published)
        return Seen(self._others(), joined)

    def publish(self, published: Published) -> Seen:
        self._note(published)
        return Seen(self._others())

    def _note(self, published: Published) -> None:
        self.published.append(published.share)
        self.counts.append(published.consumers)

    def _others(self) -> dict[str, Published | None]:
        return {
            name: share if share is None else Published(share)
            for name, share in self.others.items()
        }

    def leave(self) -> None:
        self.left += 1

    def reconnect(self) -> None:
        self.reconnects += 1
        self.joins = True


def _run(function: Callable[..., Any], *arguments: object, token: object) -> Any:
    return function(*arguments)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(monkeypatch)


def away() -> None:
    raise CoordinatorAwayError("ConnectionFailedError")


def test_share_is_published_used_and_renewed(site: Site) -> None:
    assert not site.gate.is_open
    site.beats(20)
    assert site.published == [0, HALF]
    assert site.used == [0, HALF]
    assert site.gate.is_open
    site.now += SETTINGS.valid_seconds
    assert not site.gate.is_open
    site.beats(1)
    assert site.gate.is_open
    assert site.used == [0, HALF, HALF]  # those that wait are told


def test_count_of_consumers_is_published_at_once_and_when_it_changes(site: Site) -> None:
    site.consumers = 2
    site.beats(3)
    assert site.counts == [2]
    for site.consumers in (3, None):
        site.beats(3)
        assert site.counts[-1] == site.consumers


def test_kept_share_is_renewed_while_the_coordinator_is_away(site: Site) -> None:
    site.beats(20)
    site.fault = away
    for _ in range(100):
        site.beats(1)
        assert site.gate.is_open
    statistics = site.member.statistics()
    assert (statistics.state, statistics.share) == (GroupState.AWAY, HALF)
    assert statistics.contact_at == 1019
    assert site.reconnects > 0


def test_process_that_was_frozen_within_an_attempt_gives_its_share_up(site: Site) -> None:
    """A timeout of a request has passed when it wakes, whatever the coordinator answered."""
    site.beats(20)

    def freeze() -> None:
        site.now += 60
        away()

    site.fault = freeze
    site.beats(1)
    assert site.gate.part == 0


def test_process_that_was_frozen_within_a_good_attempt_waits_for_the_next(site: Site) -> None:
    site.beats(20)

    def freeze() -> None:
        site.now += 60

    site.fault = freeze
    site.member._beat()
    assert not site.gate.is_open


def test_share_that_expired_within_an_attempt_wakes_those_who_wait(site: Site) -> None:
    site.beats(20)

    def slow() -> None:
        site.now += SETTINGS.valid_seconds
        away()

    site.fault = slow
    site.beats(1)
    assert site.used == [0, HALF, HALF]
    assert site.gate.is_open


def test_defect_is_logged_and_tried_again(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.beats(20)
    stop = site.member._stop

    class Stop:
        """Stops the thread after some rounds."""

        rounds = 0

        def is_set(self) -> bool:
            return self.rounds == 3

        def wait(self, _seconds: float) -> None:
            self.rounds += 1

    def fail() -> None:
        raise KeyError("defect")

    site.fault = fail
    site.member._stop = Stop()
    site.left = 0
    site.member._keep()
    assert caplog.text.count("Cannot follow the group evscrub.test") == 3
    assert site.left == 1
    site.member._stop = stop
    site.fault = None
    site.beats(1)
    assert site.member.statistics().state is GroupState.MEMBER


def test_lowered_share_is_published_once_it_is_kept(site: Site) -> None:
    site.beats(20)
    site.others = {"other": HALF, "third": Fraction(0)}
    site.keeps = False
    site.beats(3)
    assert site.gate.part == Fraction(1, 3)
    assert site.published[-1] == HALF
    site.keeps = True
    site.beats(2)
    assert site.published[-1] == Fraction(1, 3)


def test_members_are_noted(site: Site) -> None:
    site.beats(20)
    site.others = {"unreadable": None}
    site.beats(1)
    seen = site.member.statistics()
    assert [(one.member_id, one.share, one.is_present) for one in seen.members] == [
        ("me", HALF, True),
        ("unreadable", None, True),
        ("other", HALF, False),
    ]
    assert seen.size == 2
    site.beats(700)
    assert [one.member_id for one in site.member.statistics().members] == ["me", "unreadable"]


def test_times_of_a_short_membership_leave_room_for_an_attempt() -> None:
    for seconds in (3, 10, 30, 600):
        settings = replace(SETTINGS, membership_seconds=seconds)
        assert settings.valid_seconds < seconds
        assert settings.valid_seconds < settings.settle_seconds
        assert settings.request_seconds < settings.valid_seconds
