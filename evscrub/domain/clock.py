# SPDX-License-Identifier: Apache-2.0
"""Measure time across suspensions of the process, and estimate the database's clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time on two clocks, from which to measure.

    :param boot: seconds since boot, suspensions included.
    :param wall: seconds since the epoch.
    """

    boot: float
    wall: float


class Clock:
    """A clock that also advances while the process is stopped or the machine sleeps.

    :param boot: returns seconds since boot, suspensions included.
    :param wall: returns seconds since the epoch.
    """

    def __init__(
        self,
        boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.boot = boot
        self._wall = wall

    def moment(self) -> Moment:
        """Return the current time, from which to measure."""
        return Moment(self.boot(), self._wall())

    def since(self, moment: Moment) -> float:
        """Return the seconds since `moment`: the greater of what the two clocks measured.

        The boot clock of a virtual machine may stop while the machine is frozen, but its wall clock
        is set when it resumes.
        """
        return max(self.boot() - moment.boot, self._wall() - moment.wall)

    def wall(self) -> float:
        """Return the seconds since the epoch by this host's clock."""
        return self._wall()


def epoch(moment: datetime) -> float:
    """Return the seconds since the epoch of a naive UTC time, as the registry stores times."""
    return moment.replace(tzinfo=UTC).timestamp()


def naive(seconds: float) -> datetime:
    """Return the naive UTC time, as the registry stores times, of seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


#: How far a reading of the database's clock may differ from the estimate, beyond the duration of
#: the query. Leases are used for two thirds of claim_timeout: a third must cover twice this bound.
BOUND_SECONDS = 2.0
#: A clock that differs is adopted after this many readings that agree with each other, over this
#: many seconds. A node that is used only briefly gives fewer.
_ADOPT_READINGS = 3
_ADOPT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An offset that differs from the estimate.

    :param since: time of the first reading that supports it, seconds since boot.
    :param readings: how many consecutive readings support it.
    """

    offset: float
    since: float
    readings: int


@dataclass(frozen=True, slots=True)
class ClockStatistics:
    """What the database's clock said last.

    :param skew_seconds: how far this host's wall clock is ahead of the database's.
    :param dispute_seconds: how far the last reading was ahead of the estimate; None unless it was
        off by too much.
    """

    skew_seconds: float
    dispute_seconds: float | None


class DatabaseClock:
    """An estimate of the database's clock, so that an agent does not depend on its own clock.

    The times at which a reading was requested and received bound the difference of the clocks; the
    estimate moves only as far as needed to be within the bounds. It advances by the host's clock
    since boot, so changes of the host's wall clock do not affect it.

    A reading may come from a node whose clock is wrong. A reading that differs from the estimate by
    more than :data:`BOUND_SECONDS` must not be used. If such readings continue they are adopted,
    because the database's clock may have been corrected, unless the host's wall clock supports the
    estimate.

    :param clock: the host's clocks.
    :param several_nodes: whether the database may have several nodes. If so, the first reading too
        must agree with the host's wall clock; the first reading of a single node is always adopted.
    """

    def __init__(self, clock: Clock, *, several_nodes: bool = False) -> None:
        self.clock = clock
        self._offset = self._wall_offset
        self._is_known = several_nodes
        self._candidate: _Candidate | None = None

    def now(self) -> float:
        """Return the estimated time of the database, seconds since the epoch."""
        return self.clock.boot() + self._offset

    def moment(self) -> Moment:
        """Return the current time, to pass with a reading that is requested next."""
        return self.clock.moment()

    def agrees(self, reading: datetime, asked: Moment) -> bool:
        """Return whether a reading is within the bound of the estimate. Thread-safe.

        :param reading: the database's time, naive UTC, just received.
        :param asked: a moment before it was requested.
        """
        return _is_near(self._offset, *self._bounds(reading, asked))

    def observe(self, reading: datetime, asked: Moment) -> float:
        """Update the estimate by a reading.

        :param reading: the database's time, naive UTC, just received.
        :param asked: a moment before it was requested.
        :returns: when it was read, by the estimate, seconds since the epoch; the reading itself,
            unless that disagrees too much.
        """
        self._update(reading, asked)
        return min(max(epoch(reading), asked.boot + self._offset), self.now())

    def _update(self, reading: datetime, asked: Moment) -> None:
        lowest, highest = self._bounds(reading, asked)
        if not self._is_known or _is_near(self._offset, lowest, highest):
            self._offset = min(max(self._offset, lowest), highest)
            self._candidate = None
            # After a slow answer the estimate may still be far off.
            self._is_known |= highest - lowest <= BOUND_SECONDS
            return
        now, old = self.clock.boot(), self._candidate
        if old is None or not _is_near(old.offset, lowest, highest):
            old = _Candidate(self._offset, now, 0)
        offset = min(max(old.offset, lowest), highest)
        self._candidate = _Candidate(offset, old.since, old.readings + 1)
        lasts = old.readings + 1 >= _ADOPT_READINGS and now - old.since >= _ADOPT_SECONDS
        if lasts and not self._is_outvoted(offset):
            self._offset, self._candidate = offset, None

    @property
    def dispute_seconds(self) -> float | None:
        """Seconds that the last reading was ahead of the estimate, or None if it agreed."""
        candidate = self._candidate
        return None if candidate is None else candidate.offset - self._offset

    @property
    def skew_seconds(self) -> float:
        """Seconds that this host's wall clock is ahead of the database's."""
        return self.clock.wall() - self.now()

    def statistics(self) -> ClockStatistics:
        """Return how far the clocks are apart."""
        return ClockStatistics(self.skew_seconds, self.dispute_seconds)

    @property
    def _wall_offset(self) -> float:
        return self.clock.wall() - self.clock.boot()

    def _bounds(self, reading: datetime, asked: Moment) -> tuple[float, float]:
        value = epoch(reading)
        return value - self.clock.boot(), value - asked.boot

    def _is_outvoted(self, offset: float) -> bool:
        """Return whether the host's wall clock supports the estimate against an offset."""
        wall = self._wall_offset
        off = abs(wall - self._offset)
        return off <= BOUND_SECONDS and off < abs(wall - offset)


def _is_near(offset: float, lowest: float, highest: float) -> bool:
    return lowest - BOUND_SECONDS <= offset <= highest + BOUND_SECONDS
