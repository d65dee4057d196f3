# SPDX-License-Identifier: Apache-2.0
"""What is read of an agent's parts: statistics for each question, costlier looks now and then."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from math import floor
from typing import Generic, NamedTuple, TypeVar

from evscrub.domain.clock import Clock, ClockStatistics, DatabaseClock, Moment
from evscrub.intake.listener import Listener, ListenerStatistics
from evscrub.intake.sweep import Sweep, SweepStatistics
from evscrub.queueing.delay_queue import DelayQueue, QueueStatistics
from evscrub.registry.database import Database
from evscrub.scrubbing.scrubber import Scrubber, ScrubberStatistics
from evscrub.stores.backends import Stores
from evscrub.stores.faults import Fault
from evscrub.telemetry.statistics import RecordStatistics, TroubleStatistics

T = TypeVar("T")

#: Images of each kind that are named; of the others only the number is shown.
SHOWN = 100

#: Between two points of the history.
STEP_SECONDS = 5.0
#: Points kept: ten minutes.
POINTS = 120

_MOST_SPANS = 48
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
#: Widths that a person can add up, seconds; a line for each unit, which the formatter would undo.
_WIDTHS = (
    1, 2, 5, 10, 15, 30,
    _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE,
    _HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR,
    _DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY,
)  # fmt: skip
#: The shortest forecast; a shorter one would change its width while the last images fall due.
_SHORTEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class AgentStatistics:
    """What the parts of an agent say at one moment.

    :param at: the moment, on this host's clocks.
    :param now: the moment by the database's clock, seconds since the epoch.
    :param store_faults: the enabled stores that cannot be used.
    """

    at: Moment
    now: float
    queue: QueueStatistics
    scrubber: ScrubberStatistics
    listener: ListenerStatistics
    sweep: SweepStatistics
    database_clock: ClockStatistics
    store_faults: Mapping[str, Fault]


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts of one agent, each read and none changed."""

    queue: DelayQueue
    scrubber: Scrubber
    listener: Listener
    sweep: Sweep
    stores: Stores
    database: Database
    clock: Clock
    database_clock: DatabaseClock

    def statistics(self) -> AgentStatistics:
        """Read what costs little however much waits or is in trouble."""
        return AgentStatistics(
            at=self.clock.moment(),
            now=self.database_clock.now(),
            queue=self.queue.statistics(),
            scrubber=self.scrubber.statistics(),
            listener=self.listener.statistics(),
            sweep=self.sweep.statistics(),
            database_clock=self.database_clock.statistics(),
            store_faults=self.stores.faults,
        )


@dataclass(frozen=True, slots=True)
class Forecast:
    """How many images fall due when.

    :param start: where the first span begins, seconds since the epoch, a multiple of `width`.
    :param width: of each span, seconds.
    """

    start: float
    width: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What takes a while to look at: all images that wait or are in trouble.

    :param now: by the database's clock, seconds since the epoch.
    :param oldest_due: since when the image waits that has been due longest; None without any.
    """

    now: float
    oldest_due: float | None
    forecast: Forecast
    troubles: TroubleStatistics

    @property
    def oldest_due_age(self) -> float:
        """How long the image waits that has been due longest, seconds; 0 without any."""
        return 0.0 if self.oldest_due is None else max(0.0, self.now - self.oldest_due)


def take(sources: Sources) -> Snapshot:
    """Look at every image that waits or is in trouble."""
    statistics = sources.statistics()
    oldest = (sources.queue.oldest_ready(), statistics.scrubber.leases.oldest_ready_at)
    return Snapshot(
        now=statistics.now,
        oldest_due=min((due for due in oldest if due is not None), default=None),
        forecast=forecast(sources.queue, statistics.now),
        troubles=sources.scrubber.trouble_statistics(SHOWN),
    )


def forecast(queue: DelayQueue, now: float) -> Forecast:
    """Count what waits in spans from `now` to when the last of it falls due."""
    last = queue.last_due()
    length = max(_SHORTEST_SECONDS, (last or now) - now)
    width = next((w for w in _WIDTHS if length / w < _MOST_SPANS - 1), _WIDTHS[-1])
    start = float(floor(now / width) * width)
    count = min(_MOST_SPANS, floor((now + length - start) / width) + 1)
    return Forecast(start, width, tuple(queue.forecast(start, width, count)))


class Sparing(Generic[T]):
    """A value that is made again only when it is old enough for what making it costs.

    :param make: makes the value.
    :param clock: seconds, for both the cost and the age.
    :param share: the part of the time that may be spent on making it, above 0 and at most 1.
    """

    def __init__(self, make: Callable[[], T], clock: Callable[[], float], share: float) -> None:
        self._make = make
        self._clock = clock
        self._share = share
        self._value: T
        self._stale_at = float("-inf")

    def get(self) -> T:
        """Return the value, as new as the share of time allows."""
        now = self._clock()
        if now >= self._stale_at:
            self._value = self._make()
            done = self._clock()
            self._stale_at = done + (done - now) / self._share
        return self._value


class Point(NamedTuple):
    """What happened in one step of the history, and what was left at its end.

    :param at: the end of the step, seconds since the epoch.
    :param images: scrubbed in it.
    :param size_bytes: reclaimed in it.
    :param due: images that were due and not done with.
    :param latest_seconds: the most that an image of it was late.
    """

    at: float
    images: int
    size_bytes: int
    due: int
    latest_seconds: float


class History:
    """The last minutes, so that a page has something to draw when it is opened.

    :param record: the counts to begin from.
    """

    def __init__(self, record: RecordStatistics) -> None:
        self._points: deque[Point] = deque(maxlen=POINTS)
        self._images = record.scrubbed
        self._bytes = sum(record.bytes_reclaimed.values())

    @property
    def points(self) -> tuple[Point, ...]:
        """The points, the oldest first."""
        return tuple(self._points)

    def step(self, at: float, due: int, record: RecordStatistics) -> None:
        """End a step.

        :param at: now, seconds since the epoch.
        :param due: images that are due and not done with.
        :param record: the counts by now.
        """
        scrubbed, size = record.scrubbed, sum(record.bytes_reclaimed.values())
        images = scrubbed - self._images
        latest = max(islice(reversed(record.late_seconds), images), default=0.0)
        self._points.append(Point(at, images, size - self._bytes, due, latest))
        self._images, self._bytes = scrubbed, size
