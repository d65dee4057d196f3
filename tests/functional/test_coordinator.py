# SPDX-License-Identifier: Apache-2.0
"""Memberships of a group on real etcd, Redis and memcached servers, and in files."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tooz import coordination

from evscrub.coordination.capabilities import Published
from evscrub.coordination.coordinator import Coordinator, CoordinatorAwayError, Seen
from tests.functional.agents import wait_for
from tests.servers import COORDINATORS, CoordinatorServer, Redis, free_port
from tests.sharing import shared

#: As long as a busy machine may take for what a test does between two heartbeats.
MEMBERSHIP_SECONDS = 6
#: For tests in which nobody expires.
LONG_SECONDS = 60
#: memcached drops members up to this much early.
EARLY_SECONDS = 1.1
REQUEST_SECONDS = 5
#: For servers that do not answer.
SHORT_SECONDS = 1
#: Bounds what hangs.
DEADLINE_SECONDS = 30.0
WHOLE, HALF = Published(Fraction(1), 3), Published(Fraction(1, 2), 0)
THIRD, NONE = Published(Fraction(1, 3)), Published(Fraction(0))

ANYTHING: tuple[Any, ...] = (None, {}, {"share": "much"}, {"share": "2/1"}, "1/2", b"\xff", [1], 0)

NewMember = Callable[..., Coordinator]


# One test at a time on each server: to memcached's driver, members of the same id are one, whatever
# group each is in.
@pytest.fixture(
    params=[
        pytest.param(kind, marks=pytest.mark.xdist_group(f"members-{kind}"))
        for kind in (*COORDINATORS, "file")
    ]
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of each kind of coordinator in turn; it is shared, but for files."""
    kind = COORDINATORS.get(request.param)
    return f"file://{tmp_path}/groups" if kind is None else shared(kind).url


@pytest.fixture(params=COORDINATORS)
def server(request: pytest.FixtureRequest) -> Iterator[CoordinatorServer]:
    """Return a server of each kind in turn that the test may stop."""
    with COORDINATORS[request.param]() as server:
        yield server


@pytest.fixture
def new_member() -> Iterator[NewMember]:
    """Return a function that makes a member of the test's own group; they leave afterwards."""
    group, members = f"evscrub.{uuid.uuid4()}", []

    def make(
        url: str,
        name: str = "",
        of: str = group,
        request_seconds: int = REQUEST_SECONDS,
        membership_seconds: int = LONG_SECONDS,
    ) -> Coordinator:
        member_id = name or f"host:1:{uuid.uuid4()}"
        member = Coordinator(url, of, member_id, membership_seconds, request_seconds)
        members.append(member)
        return member

    yield make
    for member in members:
        member.leave()


def beat_until(
    member: Coordinator, what: str, true: Callable[[Seen], bool], *, reconnect: bool = False
) -> float:
    """Beat until what is seen is so, and return how many seconds that took."""
    began = time.monotonic()

    def holds() -> bool:
        try:
            return true(member.beat(NONE))
        except CoordinatorAwayError:
            if reconnect:
                member.reconnect()
            return False

    wait_for(what, holds, DEADLINE_SECONDS)
    return time.monotonic() - began


class TestMemberships:
    def test_members_see_what_the_others_publish(self, url: str, new_member: NewMember) -> None:
        first, second = new_member(url, "first"), new_member(url, "second")
        assert first.beat(NONE) == Seen({}, joined=True)
        assert second.beat(THIRD) == Seen({"first": NONE}, joined=True)
        for share in (HALF, NONE, WHOLE):
            assert first.publish(share) == Seen({"second": THIRD}, joined=False)
            # With files it is another member that publishes.
            assert second.beat(NONE) == Seen({first.member_id: share}, joined=False)
        second.leave()
        assert first.beat(NONE) == Seen({}, joined=False)
        assert second.beat(HALF) == Seen({first.member_id: WHOLE}, joined=True)

    def test_groups_do_not_see_each_other(self, url: str, new_member: NewMember) -> None:
        one, other = new_member(url), new_member(url, of=f"evscrub.{uuid.uuid4()}")
        one.beat(WHOLE)
        assert other.beat(WHOLE) == Seen({}, joined=True)
        assert one.beat(WHOLE) == Seen({}, joined=False)
        other.leave()

    def test_dead_member_expires_and_one_that_lives_does_not(
        self, url: str, new_member: NewMember
    ) -> None:
        dead, living = (
            new_member(url, name, membership_seconds=MEMBERSHIP_SECONDS)
            for name in ("dead", "living")
        )
        since = time.monotonic()
        dead.beat(HALF)
        dead.reconnect()  # without a word to the coordinator, as a kill does
        assert living.beat(HALF).others == {"dead": HALF}
        beat_until(living, "expiry", lambda seen: not seen.others)
        took = time.monotonic() - since
        assert took > MEMBERSHIP_SECONDS - EARLY_SECONDS
        # It has lived for longer than a membership.
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert living.beat(HALF) == Seen({}, joined=False)
        assert dead.beat(HALF) == Seen({"living": HALF}, joined=True)

    def test_member_that_was_frozen_joins_again(self, url: str, new_member: NewMember) -> None:
        """It had expired meanwhile; its connection is still there."""
        frozen, other = (
            new_member(url, name, membership_seconds=MEMBERSHIP_SECONDS)
            for name in ("frozen", "other")
        )
        frozen.beat(HALF)
        other.beat(HALF)
        beat_until(other, "expiry", lambda seen: not seen.others)
        seen = frozen.beat(THIRD)
        assert seen.others == {"other": HALF}
        # A heartbeat touches its file, and is a member again with what it had published.
        assert seen.joined is not url.startswith("file")
        assert other.beat(HALF).others == {"frozen": THIRD if seen.joined else HALF}

    def test_of_two_with_one_id_the_last_is_seen(self, url: str, new_member: NewMember) -> None:
        """Ids hold a random part: without, each of the two would believe to be alone."""
        first, twin, other = (new_member(url, name) for name in ("same", "same", "other"))
        first.beat(HALF)
        assert twin.beat(THIRD) == Seen({}, joined=True)
        assert other.beat(NONE).others == {"same": THIRD}
        assert first.beat(HALF) == Seen({"other": NONE}, joined=False)

    def test_what_others_publish_may_be_anything(self, url: str, new_member: NewMember) -> None:
        group = f"evscrub.{uuid.uuid4()}"
        member = new_member(url, of=group)
        member.beat(NONE)
        timeout = MEMBERSHIP_SECONDS if url.startswith("file") else REQUEST_SECONDS
        stranger = coordination.get_coordinator(
            url, b"stranger", timeout=timeout, membership_timeout=LONG_SECONDS
        )
        stranger.start()
        try:
            for published in ANYTHING:
                stranger.join_group(group.encode(), published).get()
                assert member.beat(NONE).others == {"stranger": None}, published
                stranger.leave_group(group.encode()).get()
        finally:
            stranger.stop()

    def test_id_of_another_may_be_anything(self, url: str, new_member: NewMember) -> None:
        group = f"evscrub.{uuid.uuid4()}"
        member = new_member(url, of=group)
        member.beat(NONE)
        timeout = MEMBERSHIP_SECONDS if url.startswith("file") else REQUEST_SECONDS
        stranger = coordination.get_coordinator(
            url, b"stranger\xff", timeout=timeout, membership_timeout=LONG_SECONDS
        )
        stranger.start()
        stranger.join_group(group.encode(), {}).get()
        try:
            assert list(member.beat(NONE).others.values()) == [None]
        finally:
            with suppress(UnicodeDecodeError):  # etcd's driver cannot leave with such an id
                stranger.stop()


class TestOutages:
    def test_stopped_and_started(self, server: CoordinatorServer, new_member: NewMember) -> None:
        first, second = new_member(server.url, "first"), new_member(server.url, "second")
        first.beat(HALF)
        second.beat(HALF)
        server.stop()
        for member in (first, second):
            with pytest.raises(CoordinatorAwayError):
                member.beat(HALF)
            with pytest.raises(CoordinatorAwayError):
                member.publish(HALF)
        server.start()
        beat_until(first, "the second", lambda seen: _beats(second) and "second" in seen.others)
        assert "first" in second.beat(HALF).others

    def test_restarted_empty(self, server: CoordinatorServer, new_member: NewMember) -> None:
        first, second = new_member(server.url, "first"), new_member(server.url, "second")
        first.beat(HALF)
        second.beat(THIRD)
        server.restart_empty()
        beat_until(first, "joining again", lambda seen: seen.joined)
        assert first.publish(HALF).others == {}
        beat_until(second, "joining again", lambda seen: seen.joined)
        assert second.publish(THIRD).others == {"first": HALF}
        assert first.beat(HALF) == Seen({"second": THIRD}, joined=False)

    def test_stalled(self, server: CoordinatorServer, new_member: NewMember) -> None:
        member = new_member(server.url, request_seconds=SHORT_SECONDS)
        beat_until(member, "joining", lambda _: True)
        server.freeze()
        try:
            began = time.monotonic()
            with pytest.raises(CoordinatorAwayError):
                member.beat(HALF)
            took = time.monotonic() - began
        finally:
            server.thaw()
        # The agent's share may not go out of date while it waits for an answer.
        assert took < DEADLINE_SECONDS
        beat_until(member, "the server", lambda _: True)

    def test_started_before_its_coordinator(
        self, server: CoordinatorServer, new_member: NewMember
    ) -> None:
        server.stop()
        member = new_member(server.url)
        with pytest.raises(CoordinatorAwayError):
            member.beat(NONE)
        member.leave()
        server.start()
        beat_until(member, "joining", lambda seen: seen.joined)

    def test_leaving_a_stalled_coordinator_ends(
        self, server: CoordinatorServer, new_member: NewMember
    ) -> None:
        member = new_member(server.url, request_seconds=SHORT_SECONDS)
        beat_until(member, "joining", lambda _: True)
        server.freeze()
        try:
            member.leave()
        finally:
            server.thaw()


def _beats(member: Coordinator) -> bool:
    with suppress(CoordinatorAwayError):
        member.beat(HALF)
        return True
    return False


class TestCredentials:
    def test_refused_password_is_not_shown(self, new_member: NewMember) -> None:
        server = shared(Redis)
        url = server.url.replace(server.password, "wrong-secret")
        with pytest.raises(CoordinatorAwayError) as raised:
            new_member(url).beat(NONE)
        assert "secret" not in _everything(raised.value)

    @pytest.mark.parametrize("scheme", ["redis", "etcd3+http", "memcached"])
    def test_password_for_a_server_that_is_away_is_not_shown(
        self, new_member: NewMember, scheme: str
    ) -> None:
        with pytest.raises(CoordinatorAwayError) as raised:
            new_member(f"{scheme}://user:secret@127.0.0.1:{free_port()}").beat(NONE)
        assert "secret" not in _everything(raised.value)

    @pytest.mark.parametrize(
        "url",
        [
            "mysql://user:secret@127.0.0.1/tooz",
            "nothing://user:secret@127.0.0.1",
            "redis://user:secret@127.0.0.1:port",
            "user:secret@127.0.0.1",
        ],
    )
    def test_password_of_an_unusable_url_is_not_shown(
        self, new_member: NewMember, url: str
    ) -> None:
        with pytest.raises(ValueError, match="backend_url") as raised:
            new_member(url)
        assert "secret" not in _everything(raised.value)


def _everything(error: BaseException) -> str:
    """Return all that a traceback would show of an error's causes."""
    shown = [repr(error)]
    if not error.__suppress_context__ and error.__context__ is not None:
        shown.append(_everything(error.__context__))
    if error.__cause__ is not None:
        shown.append(_everything(error.__cause__))
    return "\n".join(shown)
