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


class DatabaseClock:
    """An estimate of the database's clock, so that an agent's own clock need not be right.

    Each reading bounds the difference of the clocks by when it was asked for and when it came;
    the estimate moves only as far as the bounds demand.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = clock.wall() - clock.boot()

    def now(self) -> float:
        """The database's time, seconds since the epoch."""
        return self._clock.boot() + self._offset

    def observe(self, reading: datetime, asked: Moment) -> None:
        """Take in a reading of the database's clock that was asked for at `asked`."""
        value = epoch(reading)
        lowest, highest = value - self._clock.boot(), value - asked.boot
        self._offset = min(max(self._offset, lowest), highest)

    @property
    def skew_seconds(self) -> float:
        """How far this host's wall clock is ahead of the database's."""
        return self._clock.wall() - self.now()
