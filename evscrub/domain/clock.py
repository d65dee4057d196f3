# SPDX-License-Identifier: Apache-2.0
"""Clocks: one that knows how long this process was away, and an estimate of the database's."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time on two clocks, to measure from."""

    boot: float
    wall: float


class Clock:
    """Time that passes while the process is stopped or the machine sleeps.

    :param boot: seconds since boot, sleep included.
    :param wall: seconds since the epoch.
    """

    def __init__(
        self,
        boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.boot = boot
        self._wall = wall

    def moment(self) -> Moment:
        """Now, to measure from."""
        return Moment(self.boot(), self._wall())

    def since(self, moment: Moment) -> float:
        """Seconds that have passed since `moment`, at least.

        A virtual machine that was frozen may not have counted them, but its wall clock is set
        right when it thaws: the clock that says more is believed.
        """
        return max(self.boot() - moment.boot, self._wall() - moment.wall)

    def wall(self) -> float:
        """Seconds since the epoch, by this host."""
        return self._wall()


def epoch(moment: datetime) -> float:
    """Seconds since the epoch of a naive UTC time, as the registry keeps them."""
    return moment.replace(tzinfo=UTC).timestamp()


def naive(seconds: float) -> datetime:
    """Return the naive UTC time of seconds since the epoch, as the registry keeps times."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


#: How far a reading of the database's clock may be off the estimate, beyond what asking took. A
#: third of claim_timeout must cover it twice: leases are used for two thirds of it.
BOUND_SECONDS = 2.0
#: A clock that disagrees is adopted after so many readings that agree with each other, over so
#: many seconds; another node that is used for a moment gives fewer.
_ADOPT_READINGS = 3
_ADOPT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What readings say that disagree with the estimate: an offset, and since when how many do."""

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
    """An estimate of the database's clock, so that an agent's own clock need not be right.

    Each reading bounds the difference of the clocks by when it was asked for and when it came;
    the estimate moves only as far as the bounds demand. It runs on the host's clock since boot, so
    a host whose wall clock is set keeps it.

    A reading may come from another node than those before, whose clock is off. One that is off the
    estimate by more than :data:`BOUND_SECONDS` is not to be acted upon. If such readings go on they
    are adopted, since a clock may also be set right, except where the host's wall clock, the only
    other witness, speaks for the estimate.

    :param several_nodes: whether the database may have several nodes, so that the first reading
        too must agree with the host's wall clock; that of a single one is adopted whatever it is.
    """

    def __init__(self, clock: Clock, *, several_nodes: bool = False) -> None:
        self._clock = clock
        self._offset = self._wall_offset
        self._is_known = several_nodes
        self._candidate: _Candidate | None = None

    def now(self) -> float:
        """The database's time, seconds since the epoch."""
        return self._clock.boot() + self._offset

    def moment(self) -> Moment:
        """Now, to ask for a reading."""
        return self._clock.moment()

    def agrees(self, reading: datetime, asked: Moment) -> bool:
        """Return whether a reading is within the bound of the estimate; for any thread.

        :param reading: naive UTC, which has just come.
        :param asked: before it was asked for.
        """
        return _is_near(self._offset, *self._bounds(reading, asked))

    def observe(self, reading: datetime, asked: Moment) -> None:
        """Take in a reading of the database's clock that was asked for at `asked`."""
        lowest, highest = self._bounds(reading, asked)
        if not self._is_known or _is_near(self._offset, lowest, highest):
            self._offset = min(max(self._offset, lowest), highest)
            self._candidate = None
            # After an answer that took long the estimate may still be far off.
            self._is_known |= highest - lowest <= BOUND_SECONDS
            return
        now, old = self._clock.boot(), self._candidate
        if old is None or not _is_near(old.offset, lowest, highest):
            old = _Candidate(self._offset, now, 0)
        offset = min(max(old.offset, lowest), highest)
        self._candidate = _Candidate(offset, old.since, old.readings + 1)
        lasts = old.readings + 1 >= _ADOPT_READINGS and now - old.since >= _ADOPT_SECONDS
        if lasts and not self._is_outvoted(offset):
            self._offset, self._candidate = offset, None

    @property
    def dispute_seconds(self) -> float | None:
        """How far the last reading was ahead of the estimate, if it was off by too much."""
        candidate = self._candidate
        return None if candidate is None else candidate.offset - self._offset

    @property
    def skew_seconds(self) -> float:
        """How far this host's wall clock is ahead of the database's."""
        return self._clock.wall() - self.now()

    def statistics(self) -> ClockStatistics:
        """Return how far the clocks are apart."""
        return ClockStatistics(self.skew_seconds, self.dispute_seconds)

    @property
    def _wall_offset(self) -> float:
        return self._clock.wall() - self._clock.boot()

    def _bounds(self, reading: datetime, asked: Moment) -> tuple[float, float]:
        value = epoch(reading)
        return value - self._clock.boot(), value - asked.boot

    def _is_outvoted(self, offset: float) -> bool:
        """Return whether the host's wall clock speaks for the estimate and against an offset."""
        wall = self._wall_offset
        off = abs(wall - self._offset)
        return off <= BOUND_SECONDS and off < abs(wall - offset)


def _is_near(offset: float, lowest: float, highest: float) -> bool:
    return lowest - BOUND_SECONDS <= offset <= highest + BOUND_SECONDS
