# SPDX-License-Identifier: Apache-2.0
"""The spans that a timeline of due times is drawn in. Pure."""

from dataclasses import dataclass
from math import floor

from evscrub.queueing.delay_queue import DelayQueue

_MOST_SPANS = 48
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
#: Widths that a person can add up, seconds; a line for each unit, which the formatter would undo.
_WIDTHS = (
    1, 2, 5, 10, 15, 30,
    _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE,
    _HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR,
    _DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY,
)  # fmt: skip
#: So that a page does not jump about while the last few images fall due.
_SHORTEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """How many images fall due when.

    :param start: where the first span begins, seconds since the epoch, a multiple of `width`.
    :param width: of each span, seconds.
    """

    start: float
    width: float
    counts: tuple[int, ...]


def forecast(queue: DelayQueue, now: float) -> Forecast:
    """Count what waits in spans from now to when the last of it falls due."""
    last = queue.last_due()
    length = max(_SHORTEST_SECONDS, (last or now) - now)
    width = next((w for w in _WIDTHS if length / w < _MOST_SPANS - 1), _WIDTHS[-1])
    start = float(floor(now / width) * width)
    count = min(_MOST_SPANS, floor((now + length - start) / width) + 1)
    return Forecast(start, width, tuple(queue.forecast(start, width, count)))
