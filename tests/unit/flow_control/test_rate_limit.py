# SPDX-License-Identifier: Apache-2.0
"""The rate limit, in simulated time, in which windows and rates are exact."""

from itertools import pairwise

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evscrub.flow_control.rate_limit import RateLimit
from tests.unit.simulated_loop import TURN_SECONDS, run

rates = st.floats(0.001, 2000)
bursts = st.floats(1, 50)
workers = st.integers(1, 20)


def acquisitions(rate: float, burst: float, count: int, workers: int) -> list[float]:
    """Return the times of `count` acquisitions by several workers that never pause."""
    times: list[float] = []

    async def work(limit: RateLimit) -> None:
        while len(times) < count:
            await limit.acquire()
            times.append(anyio.current_time())

    async def main() -> None:
        limit = RateLimit(rate, burst)
        async with anyio.create_task_group() as tasks:
            for _ in range(workers):
                tasks.start_soon(work, limit)

    run(main)
    return times[:count]


@pytest.mark.costly
@settings(max_examples=60)
@given(rates, bursts, workers)
def test_no_window_has_more_than_the_burst_and_the_rate(
    rate: float, burst: float, workers: int
) -> None:
    times = acquisitions(rate, burst, 150, workers)
    # A few turns of the loop lie between the limiter's look at the clock and the test's.
    slack = 20 * workers * TURN_SECONDS
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            window = times[last] - start + slack
            assert last - first + 1 <= burst + rate * window + 1e-6


@pytest.mark.costly
@settings(max_examples=20)
@given(rates, bursts, workers)
def test_long_term_rate_is_the_configured_one(rate: float, burst: float, workers: int) -> None:
    times = acquisitions(rate, burst, 1000, workers)
    start = int(burst) + 1  # when the burst is spent
    measured = (len(times) - 1 - start) / (times[-1] - times[start])
    assert measured == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(("rate", "seconds"), [(0.01, 100), (0.5, 2), (1, 1), (10, 0.1)])
def test_burst_of_one_spaces_from_the_start(rate: float, seconds: float) -> None:
    times = acquisitions(rate, 1, 20, 5)
    assert times[0] == pytest.approx(0, abs=1e-3)
    for before, after in pairwise(times):
        assert after - before == pytest.approx(seconds, abs=1e-3)


def test_burst_is_available_again_after_an_idle_time() -> None:
    times: list[float] = []

    async def main() -> None:
        limit = RateLimit(2, 5)
        for _ in range(2):
            for _ in range(7):
                await limit.acquire()
                times.append(anyio.current_time())
            await anyio.sleep(100)

    run(main)
    first, second = times[:7], times[7:]
    assert first == pytest.approx([0, 0, 0, 0, 0, 0.5, 1], abs=1e-3)
    assert second == pytest.approx([101, 101, 101, 101, 101, 101.5, 102], abs=1e-3)


def test_zero_rate_is_no_limit() -> None:
    assert acquisitions(0, 1, 10_000, 3)[-1] < 0.1


async def _wait(limit: RateLimit, times: list[float]) -> None:
    await limit.acquire()
    times.append(anyio.current_time())


@pytest.mark.parametrize(
    ("rate", "burst", "expected"),
    [
        pytest.param(0, 1, [10, 10, 10, 10], id="no limit any more"),
        pytest.param(2, 1, [10, 10.5, 11, 11.5], id="faster"),
        pytest.param(0.001, 3, [10, 10, 10, 1010], id="a burst"),
        pytest.param(0.0001, 1, [10, 10_010, 20_010, 30_010], id="slower"),
    ],
)
def test_change_affects_waiting_tasks(rate: float, burst: float, expected: list[float]) -> None:
    times: list[float] = []

    async def main() -> None:
        limit = RateLimit(0.001, 1)
        await limit.acquire()
        async with anyio.create_task_group() as tasks:
            for _ in expected:
                tasks.start_soon(_wait, limit, times)
            await anyio.sleep(10)
            assert times == []
            limit.change(rate, burst)
            assert (limit.rate, limit.burst) == (rate, burst)

    run(main)
    assert times == pytest.approx(expected, abs=1e-3)


def test_limit_can_be_set_later() -> None:
    times: list[float] = []

    async def main() -> None:
        limit = RateLimit(0, 1)
        for _ in range(3):
            await _wait(limit, times)
        limit.change(1, 1)
        for _ in range(3):
            await _wait(limit, times)

    run(main)
    assert times == pytest.approx([0, 0, 0, 0, 1, 2], abs=1e-3)


def test_change_to_the_same_values_gives_no_new_burst() -> None:
    times: list[float] = []

    async def main() -> None:
        limit = RateLimit(1, 5)
        for _ in range(10):
            limit.change(1, 5)
            await _wait(limit, times)

    run(main)
    assert times == pytest.approx([0, 0, 0, 0, 0, 1, 2, 3, 4, 5], abs=1e-3)


def test_cancelled_task_takes_no_token() -> None:
    times: list[float] = []

    async def main() -> None:
        limit = RateLimit(0.1, 1)
        await limit.acquire()
        with anyio.move_on_after(5) as scope:
            await limit.acquire()
        assert scope.cancelled_caught
        await _wait(limit, times)
        assert anyio.current_time() < 15
        assert not limit._waiting

    run(main)
    assert times == pytest.approx([10], abs=1e-3)


def test_cancellation_during_a_change_is_delivered() -> None:
    async def main() -> bool:
        limit = RateLimit(0.1, 1)
        await limit.acquire()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(limit.acquire)
                await anyio.sleep(1)
                limit.change(0.2, 1)
                scope.cancel()
        return scope.cancelled_caught

    assert run(main)


@pytest.mark.parametrize("shared", [1, 2, 50])
def test_repeated_changes_keep_the_number_of_turns(shared: int) -> None:
    times: list[float] = []

    async def main() -> None:
        limit = RateLimit(0.001, 1)
        await limit.acquire()
        async with anyio.create_task_group() as tasks:
            for _ in range(shared):
                tasks.start_soon(_wait, limit, times)
            await anyio.sleep(1)
            for rate in (0.002, 0.003, 0.5):
                limit.change(rate, 1)

    run(main)
    assert times == pytest.approx([1 + 2 * number for number in range(shared)], abs=1e-3)


def test_without_a_rate_acquire_returns_at_once() -> None:
    async def main() -> None:
        limit = RateLimit(0, 1)
        with anyio.fail_after(0):
            for _ in range(1000):
                await limit.acquire()

    run(main)
