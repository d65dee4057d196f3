# SPDX-License-Identifier: Apache-2.0
"""Small parts: where to listen, what is kept from being looked at too often, spreads."""

from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from evscrub.domain.address import Address, parse
from evscrub.queueing.delay_queue import DelayQueue
from evscrub.status.readiness import Readiness
from evscrub.status.sparing import Sparing
from evscrub.telemetry.histogram import Spread


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("none", None),
        (" None ", None),
        ("127.0.0.1:9753", Address("127.0.0.1", 9753)),
        ("[::1]:0", Address("::1", 0)),
        ("localhost:80", Address("localhost", 80)),
    ],
)
def test_an_address_is_read(text: str, wanted: Address | None) -> None:
    assert parse(text) == wanted
    if wanted is not None:
        assert parse(str(wanted)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "9753",
        "host",
        "host:",
        ":9753",
        "host:port",
        "host:65536",
        "::1",
        "[::1:80",
        f"{'h' * 64}:80",
        "a..b:80",
        "a b:80",
        "a\0b:80",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT, or none"):
        parse(text)


def test_a_registry_that_takes_no_changes_is_told_from_one_that_is_silent() -> None:
    async def lacking(**state: bool) -> list[str]:
        parts: list[Any] = [
            None,  # the database is not asked
            SimpleNamespace(dispute_seconds=None),
            SimpleNamespace(**state),
            SimpleNamespace(count=1),
        ]
        return await Readiness(*parts).what_lacks()

    async def main() -> None:
        assert await lacking(is_away=True, refuses_changes=True) == [
            "the registry takes no changes"
        ]
        assert await lacking(is_away=True, refuses_changes=False) == [
            "the registry does not answer"
        ]

    anyio.run(main)


def test_what_is_dear_is_made_rarely() -> None:
    now = 0.0
    made = 0

    def make() -> int:
        nonlocal now, made
        now += 0.2
        made += 1
        return made

    sparing = Sparing(make, lambda: now, share=0.02)
    assert sparing.get() == 1
    now += 9.9
    assert sparing.get() == 1
    now += 0.2
    assert sparing.get() == 2


def test_a_spread_counts_into_its_buckets() -> None:
    spread = Spread((1.0, 10.0))
    for seconds in (-1, 0, 1, 1.1, 10, 11):
        spread.add(seconds)
    assert spread.counts == [3, 2, 1]
    assert spread.total_seconds == pytest.approx(23.1)


class TestWhatADelayQueueTells:
    def test_the_oldest_that_is_ready(self) -> None:
        queue = DelayQueue(100)
        assert queue.oldest_ready() is None
        for number, due in enumerate((5.0, 3.0, 400.0, 4.0)):
            queue.add(str(number), due, owner=str(number % 2), lane=str(number))
        queue.advance(10)
        assert queue.oldest_ready() == 3.0
        queue.take("1", 1)
        assert queue.oldest_ready() == 4.0

    def test_the_last_that_is_due(self) -> None:
        queue = DelayQueue(100, origin=1000)
        assert queue.last_due() is None
        queue.add("a", 1005)
        queue.add("b", 2000)
        last = queue.last_due()
        assert last is not None
        assert 2000 <= last <= 2000 + 132
        queue.advance(1999)
        assert queue.last_due() == 2000

    @pytest.mark.parametrize("width", [1.0, 60.0, 131.072, 600.0])
    def test_a_forecast_counts_each_image_in_its_span(self, width: float) -> None:
        queue = DelayQueue(1000)
        dues = [number * 7.3 for number in range(300)]
        for number, due in enumerate(dues):
            queue.add(str(number), due)
        queue.advance(500)
        counts = queue.forecast(500, width, 40)
        waiting = [due for due in dues if due > 500]
        assert sum(counts) == len(waiting)
        exact = [0] * 40
        for due in waiting:
            exact[min(39, int((due - 500) // width))] += 1
        if width < 131:
            assert counts == exact
        else:  # by bucket: never later than in truth, and by less than a span
            for span in range(1, 40):
                assert sum(counts[:span]) >= sum(exact[:span])
                assert sum(counts[: span - 1]) <= sum(exact[:span])
