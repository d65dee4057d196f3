# SPDX-License-Identifier: Apache-2.0
"""Retries that an operator asks for: which images they make due, in simulated time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from evscrub.domain.decisions import HELD, Damaged, Decision, Leave, Wait
from evscrub.domain.verdict import GONE, STORE_NOT_LOADED, Outcome, Verdict
from evscrub.flow_control.circuit_breaker import State
from evscrub.scrubbing import retries
from evscrub.scrubbing.retries import _NOT_FAILED, Retried
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.telemetry.statistics import Record
from tests.unit.world import SETTINGS, Behavior, World, down, fast

IN_USE = Verdict(Outcome.IN_USE, "in_use")
PARKING = Verdict(Outcome.CONFIGURATION, "bad_url")
UNUSABLE = Verdict(Outcome.CONFIGURATION, STORE_NOT_LOADED)
#: When the tests ask: before the next try of any image above, and before the probe of a store that
#: has been down for minutes.
AT = 300.0


def until(at: float, verdict: Verdict) -> Behavior:
    """Answer with a verdict until a time, and delete then."""
    return lambda now: (0.02, verdict) if now < at else fast(now)


async def forget(record: Record, image_id: str) -> None:
    record.forget(image_id)


def asked(
    world: World, ask: Callable[[Scrubber], Awaitable[Retried]], *, seconds: float = 5
) -> tuple[Retried, list[str]]:
    """Ask for a retry; return the result, and the images that were deleted within some seconds."""
    found: list[Retried] = []

    async def meanwhile(scrubber: Scrubber) -> None:
        await anyio.sleep(AT)
        found.append(await ask(scrubber))

    world.run(AT + seconds, meanwhile, idle=True)
    return found[0], [one.image_id for one in world.asked if one.verdict is GONE and one.at >= AT]


def test_other_tasks_run_while_many_parked_images_are_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retries, "_PIECE", 5)
    world = World(a=until(AT, UNUSABLE))
    for _ in range(100):
        world.add("o", "a")
    steps = 0

    async def count() -> None:
        nonlocal steps
        while True:
            steps += 1
            await anyio.lowlevel.checkpoint()

    async def meanwhile(scrubber: Scrubber) -> None:
        await anyio.sleep(AT)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            await anyio.lowlevel.checkpoint()
            begun = steps
            assert await scrubber.try_parked({"a"}) == 100
            assert steps - begun >= 100 / 5 - 2
            tasks.cancel_scope.cancel()

    world.run(AT + 20, meanwhile, idle=True)
    assert world.statuses() == {"deleted": 100}


def test_of_parked_images_those_are_retried_whose_store_loads() -> None:
    world = World(a=until(AT, UNUSABLE), b=until(AT, UNUSABLE))
    of_a, of_b, other = world.add("o", "a"), world.add("o", "b"), world.add("o", "a")
    world.of_images[other] = until(AT, PARKING)

    async def ask(scrubber: Scrubber) -> Retried:
        return Retried(await scrubber.try_parked({"a"}))

    retried, gone = asked(world, ask)
    assert (retried.due, gone) == (1, [of_a])
    assert world.status(of_b) == world.status(other) == "pending_delete"


@pytest.mark.parametrize("ask", [Scrubber.try_parked, Scrubber.retry_stores])
def test_an_image_that_is_forgotten_meanwhile_is_not_retried(
    ask: Callable[[Scrubber, set[str]], Awaitable[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_PIECE", 1)
    world = World(a=until(2 * AT, UNUSABLE))
    for _ in range(3):
        world.add("o", "a")
    again: list[str] = []

    async def meanwhile(scrubber: Scrubber) -> None:
        await anyio.sleep(AT)
        record = scrubber._record
        failed = list(record.troubles)
        async with anyio.create_task_group() as tasks:
            for image in failed:
                tasks.start_soon(forget, record, image)
            await ask(scrubber, {"a"})
        assert not record.troubles
        await anyio.sleep(5)
        again.extend(record.troubles)
        assert again == failed[-1:]  # the one that failed last is retried first

    world.run(AT + 10, meanwhile, idle=True)
    assert again


@pytest.mark.parametrize("verdict", [IN_USE, PARKING])
def test_named_images_are_looked_at_now(verdict: Verdict) -> None:
    world = World(a=until(AT, verdict))
    first, second, other = (world.add("o", "a") for _ in range(3))
    retried, gone = asked(world, lambda it: it.retry_images([first, second.upper()]))
    assert (retried.due, retried.waiting, retried.in_work) == (2, 0, 0)
    assert (retried.not_retried, retried.unknown, retried.stores) == ({}, [], {"a"})
    assert sorted(gone) == [first, second]
    assert world.status(other) == "pending_delete"


@pytest.mark.parametrize(
    ("decision", "is_forgotten"),
    [
        (Damaged("it has no live location"), True),
        (Wait(SETTINGS.horizon_seconds + 1), True),  # not kept in memory
        (Wait(60), False),
        (Leave(HELD), True),
    ],
)
def test_failure_of_an_image_that_is_not_tried_again_is_forgotten(
    decision: Decision, is_forgotten: bool
) -> None:
    world = World(a=lambda _: (0.02, PARKING))
    image = world.add("o", "a")
    failures: list[bool] = []

    async def meanwhile(scrubber: Scrubber) -> None:
        await anyio.sleep(AT)
        world.decisions[image] = decision
        await scrubber.retry_images([image])
        await anyio.sleep(5)
        failures.extend(
            (bool(scrubber._record.troubles), "o" in scrubber._record.owners_failing("a"))
        )

    world.run(AT + 10, meanwhile, idle=True)
    assert failures == [not is_forgotten] * 2


def test_all_failed_images_of_a_store_are() -> None:
    world = World(a=until(AT, IN_USE), b=until(AT, IN_USE))
    of_a, of_b = world.add("o", "a"), world.add("o", "b")
    retried, gone = asked(world, lambda it: it.retry_stores({"a"}))
    assert (retried.due, retried.stores) == (1, {"a"})
    assert gone == [of_a]
    assert world.status(of_b) == "pending_delete"


def test_all_failed_images_are() -> None:
    world = World(a=until(AT, IN_USE), b=until(AT, PARKING))
    images = {world.add("o", store) for store in "aabb"}
    retried, gone = asked(world, lambda it: it.retry_stores(None))
    assert (retried.due, retried.stores) == (4, {"a", "b"})
    assert set(gone) == images


def test_images_that_are_not_retried_are_named() -> None:
    world = World(a=until(AT, IN_USE))
    world.add("o", "a")

    async def ask(scrubber: Scrubber) -> Retried:
        scrubber._record.damaged["DAMAGED"] = "why"
        scrubber._queue.add("waiting", AT + 1000)
        return await scrubber.retry_images(["damaged", "Waiting", "nobody's", "x" * 100])

    retried, gone = asked(world, ask)
    assert (retried.due, retried.in_work, gone) == (0, 0, [])
    assert retried.not_retried == {
        "damaged": "is damaged and left alone: why",
        "Waiting": _NOT_FAILED,
    }
    assert retried.unknown == ["nobody's", "x" * 100]


def test_an_id_in_mixed_case_is_found_among_many() -> None:
    world = World(a=until(AT, IN_USE))
    world.add("o", "a")

    async def ask(scrubber: Scrubber) -> Retried:
        (trouble,) = scrubber._record.troubles.values()
        for number in range(3000):
            scrubber._record.failed(f"Id-{number}", trouble)
        return await scrubber.retry_images(["iD-2999", "iD-0"])

    assert asked(world, ask)[0].due == 2


def test_an_image_in_work_is_left_in_work() -> None:
    world = World(a=lambda now: (20, GONE) if now > AT - 1 else (0.02, IN_USE))
    image = world.add("o", "a")

    async def ask(scrubber: Scrubber) -> Retried:
        assert (await scrubber.retry_images([image])).due == 1
        await anyio.sleep(1)
        assert (await scrubber.retry_stores(None)).in_work == 1
        return await scrubber.retry_images([image])

    retried, gone = asked(world, ask, seconds=60)
    assert (retried.due, retried.in_work, retried.not_retried) == (0, 1, {})
    assert gone == [image]


def test_an_image_that_fails_again_stays_parked_with_one_more_try() -> None:
    world = World(a=until(1000, PARKING))
    image = world.add("o", "a")
    found = []

    async def ask(scrubber: Scrubber) -> Retried:
        before = scrubber._record.troubles[image]
        retried = await scrubber.retry_images([image])
        await anyio.sleep(60)
        after = scrubber._record.troubles[image]
        found.append((before.tries, before.parked, after.tries, after.parked))
        return retried

    asked(world, ask, seconds=61)
    assert found == [(1, True, 2, True)]
    assert len(world.asked) == 2  # and is not tried again before its delay is over


@pytest.mark.parametrize("by_store", [True, False])
def test_a_store_that_is_down_is_probed_at_once_if_it_is_named(by_store: bool) -> None:
    repaired: list[float] = []
    world = World(a=lambda now: fast(now) if repaired else down(now))
    images = [world.add(f"o{number}", "a") for number in range(10)]
    seen = []

    async def ask(scrubber: Scrubber) -> Retried:
        breaker = scrubber._lanes.of("a").breaker
        with anyio.fail_after(300):
            while breaker.opened_until < anyio.current_time() + 20:  # noqa: ASYNC110 - simulated
                await anyio.sleep(0.5)
        await anyio.sleep(1)  # until the last probe is settled
        repaired.append(anyio.current_time())
        wanted = scrubber.retry_stores({"a"}) if by_store else scrubber.retry_images(images)
        retried = await wanted
        seen.append(breaker.state_at(anyio.current_time()))
        return retried

    retried, gone = asked(world, ask, seconds=200)
    assert seen == [State.HALF_OPEN if by_store else State.OPEN]
    assert retried.due == 10
    assert retried.waiting == (0 if by_store else 10)
    assert len(gone) == 10
    first = min(one.at for one in world.asked if one.verdict is GONE)
    assert (first - repaired[0] < 1) is by_store


def test_an_owner_who_is_stopped_is_probed_too() -> None:
    world = World(a=fast)
    scrubber_states = []
    for _ in range(10):
        world.of_images[world.add("bad", "a")] = until(AT, Verdict(Outcome.UNKNOWN, "unexpected"))
    for number in range(3):
        world.add(f"good{number}", "a")

    async def ask(scrubber: Scrubber) -> Retried:
        lane = scrubber._lanes.of("a")
        breaker = lane.health.shut["bad"]
        breaker.opened_until = anyio.current_time() + 1000
        retried = await scrubber.retry_stores({"a"})
        scrubber_states.append(breaker.state_at(anyio.current_time()))
        return retried

    _, gone = asked(world, ask, seconds=30)
    assert scrubber_states == [State.HALF_OPEN]
    assert gone


def test_a_paused_store_stays_paused() -> None:
    world = World(a=until(AT, IN_USE))
    image = world.add("o", "a")

    async def ask(scrubber: Scrubber) -> Retried:
        lane = scrubber._lanes.of("a")
        lane.health.force_open("its directory is missing")
        await scrubber.retry_stores({"a"})
        retried = await scrubber.retry_stores(None)
        assert lane.breaker.state is State.FORCED_OPEN
        return retried

    retried, gone = asked(world, ask, seconds=60)
    assert (retried.due, retried.waiting, retried.stores) == (1, 1, {"a"})
    assert gone == []
    assert world.status(image) == "pending_delete"


def test_an_image_that_the_full_queue_dropped_is_looked_up_again() -> None:
    world = World(a=until(AT, IN_USE))
    image = world.add("o", "a")

    async def ask(scrubber: Scrubber) -> Retried:
        assert scrubber._queue.cancel(image)
        return await scrubber.retry_images([image])

    retried, gone = asked(world, ask)
    assert (retried.due, gone) == (1, [image])


def test_an_image_that_does_not_fit_in_the_queue_is_named() -> None:
    world = World(a=until(AT, IN_USE))
    image = world.add("o", "a")

    async def ask(scrubber: Scrubber) -> Retried:
        scrubber._queue.cancel(image)
        scrubber._queue.capacity = 1
        scrubber._lanes.of("a").health.force_open("paused")
        scrubber._queue.add("another", 1, lane="a")
        scrubber._queue.advance(AT)
        return await scrubber.retry_images([image])

    retried, _ = asked(world, ask)
    assert retried.due == 0
    assert "queue" in retried.not_retried[image]


def test_a_store_counts_as_working_once_none_of_its_images_is_left_to_fail() -> None:
    world = World(a=down, b=down)
    for store in "ab":
        for number in range(10):
            world.add(f"o{number}", store)
    states = []

    async def ask(scrubber: Scrubber) -> Retried:
        for image in world.images[:9]:
            world.finish(image)
        retried = await scrubber.retry_stores(None)
        await anyio.sleep(120)
        one, other = (scrubber._lanes.of(store) for store in "ab")
        states.append(one.breaker.state)  # its last image fails
        world.finish(world.images[9])
        await scrubber.retry_stores(None)
        await anyio.sleep(2)
        states.extend([one.breaker.state, other.breaker.state])
        return retried

    asked(world, ask, seconds=300)
    assert states == [State.OPEN, State.CLOSED, State.OPEN]


def test_so_does_it_for_an_owner() -> None:
    world = World(a=fast)
    bad = [world.add("bad", "a") for _ in range(10)]
    for image in bad:
        world.of_images[image] = lambda _now: (0.02, Verdict(Outcome.UNKNOWN, "unexpected"))
    for number in range(3):
        world.add(f"good{number}", "a")
    stopped = []

    async def ask(scrubber: Scrubber) -> Retried:
        for left in (bad[:9], bad[9:]):
            for image in left:
                world.finish(image)
            retried = await scrubber.retry_stores({"a"})
            await anyio.sleep(120)
            stopped.append(set(scrubber._lanes.of("a").health.shut))
        return retried

    asked(world, ask, seconds=300)
    assert stopped == [{"bad"}, set()]
