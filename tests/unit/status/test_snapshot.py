# SPDX-License-Identifier: Apache-2.0
"""What is read of an agent's parts, and how often."""

import copy
import dataclasses
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from typing import Any

import pytest

from evscrub.domain.proof import ProofResult
from evscrub.status.snapshot import POINTS, History, Sources, Sparing, forecast, take
from evscrub.telemetry.statistics import Record
from tests.unit.agent_parts import NOW, FakeClock, make_busy, make_sources


def test_a_forecast_has_every_waiting_image_once() -> None:
    sources = make_sources(FakeClock())
    for number in range(500):
        sources.queue.add(f"{number}", NOW + number**2 / 10)
    found = forecast(sources.queue, NOW)
    assert sum(found.counts) == 500
    assert len(found.counts) <= 48
    assert found.start <= NOW < found.start + found.width
    assert found.start + found.width * len(found.counts) >= NOW + 499**2 / 10


def test_the_forecast_of_an_empty_queue_is_empty() -> None:
    assert sum(forecast(make_sources(FakeClock()).queue, NOW).counts) == 0


def test_history_tells_what_each_step_brought_and_forgets_the_oldest() -> None:
    record = Record()
    record.scrubbed = 5  # before anybody looked
    history = History(record.statistics())
    for number in range(POINTS + 5):
        record.scrubbed += 2
        record.bytes_reclaimed["fast"] += 10
        record.late_seconds.extend((number, 0.5))
        history.step(NOW + number, 3, record.statistics())
    assert len(history.points) == POINTS
    assert history.points[-1] == (NOW + POINTS + 4, 2, 10, 3, POINTS + 4)


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


@pytest.fixture
def busy() -> Sources:
    sources = make_sources(FakeClock())
    make_busy(sources)
    return sources


#: What can't be changed, and copying which is no matter.
VALUES = (bool, int, float, str, Enum, timedelta)


def assert_frozen(value: Any) -> None:
    """See that a value is made of frozen dataclasses, tuples and mappings of such."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(value, field.name, None)
            assert_frozen(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in (*value.keys(), *value.values()):
            assert_frozen(item)
    elif isinstance(value, tuple | frozenset):
        for item in value:
            assert_frozen(item)
    else:
        assert value is None or isinstance(value, VALUES), value


def test_statistics_are_frozen_down_to_their_last_value(busy: Sources) -> None:
    for taken in (busy.statistics(), take(busy), busy.scrubber.images_in_trouble()):
        assert_frozen(taken)


def test_statistics_stay_as_they_were_taken(busy: Sources) -> None:
    taken = (busy.statistics(), take(busy), busy.scrubber.images_in_trouble())
    before = copy.deepcopy(taken)
    record = busy.scrubber.record
    for counter in (record.finished, record.outcomes, record.bytes_reclaimed, record.left_alone):
        for key in [*counter, "new"]:
            counter[key] += 1
    record.late_seconds.append(1.0)
    for spread in (record.lateness, record.queued, record.worked):
        spread.add(1.0)
    record.troubles.clear()
    record.damaged.clear()
    busy.scrubber.witnesses._proofs["fast", ProofResult.RIGHT] += 1
    busy.scrubber.lanes.of("new")
    busy.scrubber.lanes.of("slow").health.shut.clear()
    busy.queue.take("fast", 1)
    assert taken == before
    one, two = before[0].scrubber, busy.statistics().scrubber
    for name in (field.name for field in dataclasses.fields(one.record)):
        unchanged = {"scrubbed", "missed_by_bus", "leases_lost", "retries"}
        assert (getattr(one.record, name) == getattr(two.record, name)) is (name in unchanged)
    assert one.proofs != two.proofs
    assert one.lanes != two.lanes
