# SPDX-License-Identifier: Apache-2.0
"""The last minutes, kept so that a page has something to draw when it is opened. Pure."""

from collections import deque
from itertools import islice
from typing import NamedTuple

from evscrub.telemetry.statistics import Record

#: Between two points.
STEP_SECONDS = 5.0
#: Points kept: ten minutes.
POINTS = 120


class Point(NamedTuple):
    """What happened in one step, and what was left at its end.

    :param latest_seconds: the most that an image of it was late.
    """

    at: float
    images: int
    size_bytes: int
    due: int
    latest_seconds: float


class History:
    """Points in time, the oldest first.

    :param record: what is followed.
    """

    def __init__(self, record: Record) -> None:
        self.points: deque[Point] = deque(maxlen=POINTS)
        self._record = record
        self._images = record.scrubbed
        self._bytes = record.bytes_reclaimed.total()

    def step(self, at: float, due: int) -> None:
        """End a step.

        :param at: now, seconds since the epoch.
        :param due: images that are due and not done with.
        """
        scrubbed, size = self._record.scrubbed, self._record.bytes_reclaimed.total()
        images = scrubbed - self._images
        latest = max(islice(reversed(self._record.late_seconds), images), default=0.0)
        self.points.append(Point(at, images, size - self._bytes, due, latest))
        self._images, self._bytes = scrubbed, size
