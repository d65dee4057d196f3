# SPDX-License-Identifier: Apache-2.0
"""Reads the state of an agent: cheap statistics on each request, costly snapshots less often."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from math import floor
from typing import Generic, NamedTuple, TypeVar

from evscrub.coordination.member import GroupMember
from evscrub.coordination.statistics import GroupStatistics
from evscrub.domain.clock import Clock, ClockStatistics, DatabaseClock, Moment
from evscrub.intake.listener import Listener, ListenerStatistics
from evscrub.intake.sweep import Sweep, SweepStatistics
from evscrub.queueing.delay_queue import DelayQueue, QueueStatistics
from evscrub.registry.database import Database
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.scrubbing.statistics import ScrubberStatistics
from evscrub.stores.backends import Stores
from evscrub.stores.faults import Fault
from evscrub.telemetry.statistics import RecordStatistics, TroubleStatistics

T = TypeVar("T")

#: Maximum number of images of each kind to list; the others are only counted.
SHOWN = 100

#: Interval between two points of the history.
STEP_SECONDS = 5.0
#: Length of the history: ten minutes.
POINTS = 120

_MOST_SPANS = 48
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
#: Round widths of spans, seconds; a line for each unit, which the formatter would join.
_WIDTHS = (
    1, 2, 5, 10, 15, 30,
    _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE,
    _HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR,
    _DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY,
)  # fmt: skip
#: Minimum length of a forecast, so that its width is stable while the last images fall due.
_SHORTEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class AgentStatistics:
    """The parts of an agent at one moment.

    :param at: the moment by this host's clocks.
    :param now: the moment by the database's clock, seconds since the epoch.
    :param store_faults: why enabled stores cannot be used, by store.
    :param group: the group that shares the limits; None if each agent has them for itself.
    :param consumers: agents that consume from the bus; None if not known.
    """

    at: Moment
    now: float
    queue: QueueStatistics
    scrubber: ScrubberStatistics
    listener: ListenerStatistics
    sweep: SweepStatistics
    database_clock: ClockStatistics
    store_faults: Mapping[str, Fault]
    group: GroupStatistics | None
    consumers: int | None


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts of an agent; they are only read."""

    queue: DelayQueue
    scrubber: Scrubber
    listener: Listener
    sweep: Sweep
    stores: Stores
    database: Database
    clock: Clock
    database_clock: DatabaseClock
    group: GroupMember | None
    consumers: Callable[[], int | None]

    def statistics(self) -> AgentStatistics:
        """Return statistics; their cost does not grow with the number of images."""
        return AgentStatistics(
            at=self.clock.moment(),
            now=self.database_clock.now(),
            queue=self.queue.statistics(),
            scrubber=self.scrubber.statistics(),
            listener=self.listener.statistics(),
            sweep=self.sweep.statistics(),
            database_clock=self.database_clock.statistics(),
            store_faults=self.stores.faults,
            group=None if self.group is None else self.group.statistics(),
            consumers=self.consumers(),
        )


@dataclass(frozen=True, slots=True)
class Forecast:
    """Number of images that fall due in each of several equal spans of time.

    :param start: start of the first span, seconds since the epoch, a multiple of `width`.
    :param width: length of each span, seconds.
    :param counts: number of images by span.
    """

    start: float
    width: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Summary of all images that wait or are in trouble; costly to take.

    :param now: time by the database's clock, seconds since the epoch.
    :param waiting: number of images that are not due and have not failed.
    :param awaiting_retry: number of failed images whose next try is not due.
    :param oldest_due: when the oldest due image was due, or ready for its retry, seconds since the
        epoch; None if no image is due.
    """

    now: float
    waiting: int
    awaiting_retry: int
    oldest_due: float | None
    forecast: Forecast
    troubles: TroubleStatistics

    @property
    def oldest_due_age(self) -> float:
        """Seconds since the oldest due image was due; 0 if no image is due."""
        return 0.0 if self.oldest_due is None else max(0.0, self.now - self.oldest_due)


def take(sources: Sources) -> Snapshot:
    """Take a snapshot; the cost grows with the number of images."""
    statistics = sources.statistics()
    oldest = (sources.queue.oldest_ready(), statistics.scrubber.leases.oldest_ready_at)
    awaiting_retry = sources.scrubber.awaiting_retry()
    return Snapshot(
        now=statistics.now,
        waiting=statistics.queue.waiting - awaiting_retry,
        awaiting_retry=awaiting_retry,
        oldest_due=min((due for due in oldest if due is not None), default=None),
        forecast=forecast(sources.queue, statistics.now),
        troubles=sources.scrubber.trouble_statistics(SHOWN),
    )


def forecast(queue: DelayQueue, now: float) -> Forecast:
    """Count images in up to 48 spans from `now` until the last one falls due, or for its retry."""
    last = queue.last_due()
    length = max(_SHORTEST_SECONDS, (last or now) - now)
    width = next((w for w in _WIDTHS if length / w < _MOST_SPANS - 1), _WIDTHS[-1])
    start = float(floor(now / width) * width)
    count = min(_MOST_SPANS, floor((now + length - start) / width) + 1)
    return Forecast(start, width, tuple(queue.forecast(start, width, count)))


class Sparing(Generic[T]):
    """A cached value whose lifetime is proportional to the cost of making it.

    :param make: returns a new value.
    :param clock: returns seconds, to measure both cost and age.
    :param share: maximum share of time spent in `make`, above 0 and at most 1.
    """

    def __init__(self, make: Callable[[], T], clock: Callable[[], float], share: float) -> None:
        self._make = make
        self._clock = clock
        self._share = share
        self._value: T
        self._stale_at = float("-inf")

    def get(self) -> T:
        """Return the value, made again if it is stale."""
        now = self._clock()
        if now >= self._stale_at:
            self._value = self._make()
            done = self._clock()
            self._stale_at = done + (done - now) / self._share
        return self._value


class Point(NamedTuple):
    """One step of the history.

    :param at: end of the step, seconds since the epoch.
    :param images: images scrubbed in the step.
    :param size_bytes: space reclaimed in the step.
    :param due: images due and not settled at the end of the step.
    :param latest_seconds: maximum lateness of an image scrubbed in the step; 0 without any.
    """

    at: float
    images: int
    size_bytes: int
    due: int
    latest_seconds: float


class History:
    """History of the last ten minutes, for the page to draw when it is opened.

    :param record: the counts at the start of the first step.
    """

    def __init__(self, record: RecordStatistics) -> None:
        self._points: deque[Point] = deque(maxlen=POINTS)
        self._images = record.scrubbed
        self._bytes = sum(record.bytes_reclaimed.values())

    @property
    def points(self) -> tuple[Point, ...]:
        """The points, oldest first."""
        return tuple(self._points)

    def step(self, at: float, due: int, record: RecordStatistics) -> None:
        """Add a point for the step that ends now.

        :param at: now, seconds since the epoch.
        :param due: images that are due and not settled.
        :param record: the current counts.
        """
        scrubbed, size = record.scrubbed, sum(record.bytes_reclaimed.values())
        images = scrubbed - self._images
        latest = max(islice(reversed(record.late_seconds), images), default=0.0)
        self._points.append(Point(at, images, size - self._bytes, due, latest))
        self._images, self._bytes = scrubbed, size
