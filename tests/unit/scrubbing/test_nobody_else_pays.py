# SPDX-License-Identifier: Apache-2.0
"""Isolation: bad images and failing owners do not delay others; in simulated time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import anyio
import pytest
from glance_store import exceptions as store_exceptions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evscrub.domain.proof import Presence
from evscrub.domain.verdict import GONE, Outcome, Verdict, judge
from evscrub.flow_control.circuit_breaker import State
from evscrub.scrubbing.scrubber import Scrubber
from tests.unit.world import DOWN, NOT_FOUND, SETTINGS, THROTTLED, Behavior, World, down, fast


def file_verdict(cause: OSError) -> Verdict:
    """Return the verdict on the file driver's exception for an error of unlink."""
    error = store_exceptions.Forbidden(message="You cannot delete file /x")
    error.__context__ = cause
    return judge(error, "file")


pytestmark = pytest.mark.costly

DIRECTORY = file_verdict(IsADirectoryError(21, "x"))
IMMUTABLE = file_verdict(PermissionError(1, "x"))
DENIED = file_verdict(PermissionError(13, "x"))
BAD_BLOCK = file_verdict(OSError(5, "x"))
UNEXPECTED = Verdict(Outcome.UNKNOWN, "unexpected")
#: What the store says of the image alone, and what looks as if it said it of itself.
OWN = [DIRECTORY, IMMUTABLE, Verdict(Outcome.REFUSED, "refused"), Verdict(Outcome.IN_USE, "in_use")]
LIKE_STORE = [DENIED, BAD_BLOCK, DOWN, UNEXPECTED, Verdict(Outcome.TRANSIENT, "timeout")]


def always(verdict: Verdict, seconds: float = 0.02) -> Behavior:
    return lambda _now: (seconds, verdict)


def stuck(world: World, owners: Iterable[str], each: int, verdict: Verdict) -> None:
    """Add images that the store never deletes."""
    for owner in owners:
        for _ in range(each):
            world.of_images[world.add(owner, "a")] = always(verdict)


def gone_at(world: World, images: Iterable[str]) -> list[float]:
    """Return the times when these images were deleted."""
    wanted = set(images)
    return [one.at for one in world.asked if one.image_id in wanted and one.verdict is GONE]


class TestStuckImages:
    @pytest.mark.parametrize(("owners", "each"), [(6, 1), (6, 5), (30, 1), (30, 2)])
    @pytest.mark.parametrize("verdict", OWN, ids=lambda verdict: verdict.reason)
    def test_do_not_delay_good_images(self, owners: int, each: int, verdict: Verdict) -> None:
        world = World(a=fast)
        names = [f"o{number}" for number in range(owners)]
        stuck(world, names, each, verdict)
        good = [world.add(names[number % owners], "a") for number in range(12)]
        world.run(60)
        times = gone_at(world, good)
        assert len(times) == 12
        assert max(times) < 5

    @pytest.mark.parametrize("verdict", LIKE_STORE, ids=lambda verdict: verdict.reason)
    @pytest.mark.parametrize(("owners", "each"), [(6, 1), (6, 5), (30, 1)])
    def test_do_not_delay_good_images_if_they_fail_like_an_outage(
        self, owners: int, each: int, verdict: Verdict
    ) -> None:
        world = World(a=fast)
        names = [f"o{number}" for number in range(owners)]
        stuck(world, names, each, verdict)
        good = [world.add(names[number % owners], "a") for number in range(12)]
        world.run(120)
        times = gone_at(world, good)
        assert len(times) == 12
        assert max(times) < 40

    @pytest.mark.parametrize("verdict", [*OWN, *LIKE_STORE], ids=lambda verdict: verdict.reason)
    def test_do_not_delay_later_good_images(self, verdict: Verdict) -> None:
        """Images that failed before are no evidence against the store."""
        world = World(a=fast)
        stuck(world, [f"o{number}" for number in range(30)], 1, verdict)
        good = [world.add(f"o{number % 30}", "a") for number in range(40)]
        late: list[str] = []

        async def come(scrubber: Scrubber) -> None:
            await anyio.sleep(100)
            for number in range(30):
                late.append(world.add(f"o{number}", "a"))
                scrubber._queue.add(late[-1], 0.0, owner=f"o{number}")
            scrubber.wake()

        world.run(115, come)
        assert len(gone_at(world, good)) == 40
        times = gone_at(world, late)
        assert len(times) == 30
        assert max(times) < 101

    @pytest.mark.parametrize("verdict", [*OWN, *LIKE_STORE], ids=lambda verdict: verdict.reason)
    def test_single_one_never_opens_the_breaker(
        self, verdict: Verdict, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "evscrub")
        world = World(replace(SETTINGS, delays=replace(SETTINGS.delays, longest=10)), a=fast)
        stuck(world, ["o"], 1, verdict)
        scrubbers: list[Scrubber] = []

        async def keep(scrubber: Scrubber) -> None:
            scrubbers.append(scrubber)

        world.run(600, keep)
        assert "does not work" not in caplog.text
        assert "fails for images" not in caplog.text
        assert scrubbers[0]._lanes.of("a").breaker.state is State.CLOSED

    def test_are_parked_eventually(self) -> None:
        world = World(a=fast)
        stuck(world, ["o"], 1, IMMUTABLE)
        parked: list[bool] = []

        async def watch(scrubber: Scrubber) -> None:
            await anyio.sleep(3000)
            parked.extend(trouble.parked for trouble in scrubber._record.troubles.values())

        world.run(3001, watch)
        assert parked == [True]

    @pytest.mark.costly
    def test_refused_one_after_another_are_tried_singly(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = World(a=lambda now: fast(now) if now > 60 else (0.02, IMMUTABLE))
        for number in range(3000):
            world.add(f"o{number % 50}", "a")
        most: list[int] = []

        async def watch(_: Scrubber) -> None:
            await anyio.sleep(10)
            world.most_under_way.clear()
            await anyio.sleep(40)
            most.append(world.most_under_way["a"])

        world.run(120, watch)
        assert most == [1]
        assert caplog.text.count("refuses one image after another") == 1
        fresh = [one for one in world.asked if one.at > 60]
        assert len({one.image_id for one in fresh if one.at < 65}) > 500

    def test_open_the_breaker_for_a_lone_owner(self, caplog: pytest.LogCaptureFixture) -> None:
        world = World(a=lambda now: fast(now) if now > 300 else down(now))
        for _ in range(1000):
            world.add("o", "a")
        assert world.run(1500) < 300 + 75 + 300
        assert world.statuses() == {"deleted": 1000}
        assert caplog.text.count("Store a does not work (connection)") == 1
        early = [one for one in world.asked if one.at < 300]
        assert len([one for one in early if one.at < 60]) <= 45
        assert len([one for one in early if one.at >= 60]) <= 16


class TestProbes:
    def test_are_images_that_have_not_failed(self) -> None:
        world = World(a=down)
        for number in range(200):
            world.add(f"o{number % 20}", "a")
        world.run(300)
        asked = [one.image_id for one in world.asked]
        assert len(asked) > 30
        assert len(set(asked)) == len(asked)

    def test_rotate_owners(self) -> None:
        world = World(a=down)
        for owner in ["flood"] * 300 + ["a", "b", "c", "d"] * 20:
            world.add(owner, "a")
        world.run(120)
        probes = [one.owner for one in world.asked if one.at > 1]
        assert len(probes) > 10
        assert all(len(set(probes[at : at + 5])) == 5 for at in range(len(probes) - 5))

    def test_are_failed_images_if_there_is_no_other(self) -> None:
        world = World(a=lambda now: fast(now) if now > 100 else down(now))
        for number in range(10):
            world.add(f"o{number}", "a")
        world.run(400)
        assert world.statuses() == {"deleted": 10}

    def test_are_not_images_that_failed_in_another_agent(self) -> None:
        world = World(a=lambda now: fast(now) if now > 30 else down(now))
        for number in range(40):
            world.add(f"o{number}", "a", given_back=True)
        fresh = [world.add(f"o{number}", "a") for number in range(40)]
        world.run(30)
        probes = [one.image_id for one in world.asked if one.at > 2]
        assert probes
        assert set(probes) <= set(fresh)

    @pytest.mark.parametrize("verdict", LIKE_STORE, ids=lambda verdict: verdict.reason)
    def test_ignore_failures_handed_back_by_another_agent(
        self, verdict: Verdict, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = World(a=fast)
        for number in range(40):
            image_id = world.add(f"o{number}", "a", given_back=True)
            world.of_images[image_id] = always(verdict)
        good = [world.add(f"o{number}", "a") for number in range(12)]
        world.run(60)
        assert max(gone_at(world, good)) < 2
        assert "does not work" not in caplog.text


class TestOneOwner:
    def test_with_throttled_images_slows_no_other(self) -> None:
        world = World(a=fast)
        stuck(world, ["evil"], 60, THROTTLED)
        others = [world.add(f"o{number}", "a") for number in range(20)]
        world.run(150)
        times = gone_at(world, others)
        assert len(times) == 20
        assert max(times) < 2

    def test_alone_slows_no_later_owner(self) -> None:
        world = World(a=fast)
        stuck(world, ["evil"], 300, THROTTLED)
        # One that is deleted now and then keeps its owner's breaker closed.
        for _ in range(300):
            world.add("evil", "a")
        others: list[str] = []

        async def come(scrubber: Scrubber) -> None:
            await anyio.sleep(30)
            for number in range(20):
                others.append(world.add(f"o{number}", "a"))
                scrubber._queue.add(others[-1], 0.0, owner=f"o{number}")
            scrubber.wake()

        world.run(60, come)
        times = gone_at(world, others)
        assert len(times) == 20
        assert max(times) < 32

    @pytest.mark.parametrize("later", [0.0, 5.0])
    def test_with_hanging_deletes_leaves_slots(self, later: float) -> None:
        world = World(a=fast)
        for _ in range(60):
            world.of_images[world.add("evil", "a")] = always(DOWN, 100_000)
        others: list[str] = []

        async def come(scrubber: Scrubber) -> None:
            await anyio.sleep(later)
            for number in range(20):
                others.append(world.add(f"o{number}", "a"))
                scrubber._queue.add(others[-1], 0.0, owner=f"o{number}")
            scrubber.wake()

        world.run(60, come, drain=1)
        times = gone_at(world, others)
        assert len(times) == 20
        assert max(times) < later + 3

    def test_with_hanging_deletes_leaves_slots_of_each_store(self) -> None:
        world = World(a=fast, b=fast)
        for number in range(120):
            image_id = world.add("evil", "ab"[number % 2])
            world.of_images[image_id] = always(DOWN, 100_000)
        others = [world.add(f"o{number}", "ab"[number % 2]) for number in range(20)]
        world.run(60, drain=1)
        assert len(gone_at(world, others)) == 20

    def test_alone_gets_nearly_all_slots(self) -> None:
        world = World(a=always(GONE, 1.0))
        for _ in range(150):
            world.add("o", "a")
        world.run(60)
        assert world.most_under_way["a"] == 15

    @pytest.mark.parametrize("live", [True, False])
    def test_with_aliases_of_one_object_pauses_no_other(
        self, caplog: pytest.LogCaptureFixture, *, live: bool
    ) -> None:
        """This holds even if no slower delete of another owner ends between theirs."""
        world = World(a=always(GONE, 1.0))
        if live:
            world.live["a"] = lambda _: Presence.THERE
        for _ in range(24):
            world.of_images[world.add("evil", "a")] = always(NOT_FOUND)
        others = [world.add(f"o{number}", "a") for number in range(40)]
        world.run(60)
        gone = gone_at(world, others)
        assert len(gone) == 40
        assert max(gone) < 10
        if live:  # without, one who is alone in the end cannot be told from a wrong store
            assert "Store a is paused" not in caplog.text


class TestForgedEvents:
    """Any publisher can send an event with any owner, even before the real one."""

    def test_naming_a_stopped_owner_delay_no_other(self) -> None:
        world = World(a=fast)
        for _ in range(24):
            world.of_images[world.add("evil", "a")] = always(NOT_FOUND)
        others: list[str] = []

        async def forge(scrubber: Scrubber) -> None:
            await anyio.sleep(30)
            others.append(world.add("victim", "a"))
            for owner in ("evil", "victim"):
                scrubber._queue.add(others[0], 0.0, owner=owner)
            scrubber.wake()

        world.run(60, forge)
        assert max(gone_at(world, others), default=60) < 32

    @pytest.mark.parametrize(
        ("rate", "behavior", "back_at"),
        [(1.0, fast, 10), (0.0, lambda now: fast(now) if now > 10 else down(now), 10)],
        ids=["slow store", "store that was down"],
    )
    def test_of_many_owners_delay_no_other(
        self, rate: float, behavior: Behavior, back_at: float
    ) -> None:
        world = World(replace(SETTINGS, rate=rate), a=behavior)
        for number in range(6):
            world.add(f"o{number}", "a")
        others: list[str] = []

        async def forge(scrubber: Scrubber) -> None:
            await anyio.sleep(5)
            for number in range(5000):
                scrubber._queue.add(f"forged {number}", 0.0, owner=str(number))
            scrubber.wake()
            await anyio.sleep(1)
            others.append(world.add("victim", "a"))
            scrubber._queue.add(others[0], 0.0, owner="victim")
            scrubber.wake()

        world.run(100, forge, idle=True)
        assert max(gone_at(world, others), default=100) < back_at + 10


class TestClaimsTakenOver:
    def test_in_a_wrong_directory_pause_the_store(self, caplog: pytest.LogCaptureFixture) -> None:
        world = World(a=always(NOT_FOUND))
        for number in range(300):
            world.add(f"o{number % 7}", "a", stale=True)
        world.run(60)
        assert all(world.left(image_id) for image_id in world.images)
        assert caplog.text.count("Store a is paused") == 1

    def test_of_a_lone_owner_pause_the_store(self, caplog: pytest.LogCaptureFixture) -> None:
        world = World(a=always(NOT_FOUND))
        for _ in range(300):
            world.add("o", "a", stale=True)
        world.run(60)
        assert all(world.left(image_id) for image_id in world.images)
        assert caplog.text.count("Store a is paused") == 1

    @pytest.mark.parametrize("live", [True, False])
    def test_are_trusted_if_their_remaining_data_exists(
        self, caplog: pytest.LogCaptureFixture, *, live: bool
    ) -> None:
        """For instance after an agent died between its deletes and their settlement."""
        world = World(a=fast)
        if live:
            world.live["a"] = lambda _: Presence.THERE
        for number in range(200):
            world.of_images[world.add(f"o{number % 7}", "a", stale=True)] = always(NOT_FOUND)
        for number in range(50):
            world.add(f"o{number % 7}", "a", stale=True)
        assert world.run(60) < 1 + 10  # until the second retry, of those that were asked for last
        assert world.statuses() == {"deleted": 250}
        asked = Counter(one.image_id for one in world.asked)
        assert sum(count > 2 for count in asked.values()) <= 5
        assert "paused" not in caplog.text

    def test_are_not_proven_by_data_in_another_place(self) -> None:
        world = World(a=fast)
        wrong = [world.add(f"o{number % 7}", "a", place="x", stale=True) for number in range(100)]
        for image_id in wrong:
            world.of_images[image_id] = always(NOT_FOUND)
        for number in range(100):
            world.add(f"o{number % 7}", "a", place="y")
        world.run(60)
        assert all(world.left(image_id) for image_id in wrong)


_verdicts = st.sampled_from([*OWN, *LIKE_STORE, THROTTLED])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 9), _verdicts), max_size=40),
    st.lists(st.integers(0, 9), min_size=1, max_size=10),
    st.floats(0, 100),
)
def test_good_image_waits_at_most_a_minute(
    bad: list[tuple[int, Verdict]], owners: list[int], later: float
) -> None:
    """This holds whatever else fails, if the failing images arrived long before."""
    world = World(a=fast)
    for owner, verdict in bad:
        world.of_images[world.add(f"o{owner}", "a")] = always(verdict)
    good: list[str] = []

    async def come(scrubber: Scrubber) -> None:
        await anyio.sleep(100 + later)
        for owner in owners:
            good.append(world.add(f"o{owner}", "a"))
            scrubber._queue.add(good[-1], 0.0, owner=f"o{owner}")
        scrubber.wake()

    world.run(180 + later, come, idle=True)
    times = gone_at(world, good)
    assert len(times) == len(good)
    assert max(times) <= 100 + later + 75 + 1


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 40), st.integers(1, 5), st.sampled_from([*LIKE_STORE, THROTTLED]))
def test_store_that_is_down_gets_one_probe_at_a_time(
    owners: int, each: int, verdict: Verdict
) -> None:
    world = World(a=always(verdict))
    for number in range(owners):
        for _ in range(each):
            world.add(f"o{number}", "a")
    world.run(400)
    late = sorted(one.at for one in world.asked if one.at > 120)
    shut_as_a_whole = owners >= 2 and owners * each >= 16
    if shut_as_a_whole:
        pauses = [after - before for before, after in pairwise(late)]
        assert all(pause > 0.75 * 25 for pause in pauses), pauses
