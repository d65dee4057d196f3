# SPDX-License-Identifier: Apache-2.0
"""The state of the demo at one moment, as displayed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Frame:
    """The state of the demo at one moment.

    :param act: what happens now, in words.
    :param seconds: time since the beginning.
    :param unheard: deleted images that the agent does not know of yet.
    :param per_second: images scrubbed a second, lately.
    :param falls_due: seconds from now until each waiting image is due.
    :param late: lateness of each scrubbed image in seconds, in the order of scrubbing.
    :param owners: number of images scrubbed, and of all to be deleted, by owner.
    """

    act: str
    seconds: float
    uploaded: int
    images: int
    to_delete: int
    deleted: int
    unheard: int
    waiting: int
    due: int
    in_work: int
    scrubbed: int
    bytes_reclaimed: int
    bytes_to_reclaim: int
    per_second: float
    falls_due: Sequence[float]
    late: Sequence[float]
    owners: Mapping[str, tuple[int, int]]


def lateness(late: Sequence[float]) -> str:
    """Return median and maximum of the lateness as text."""
    if not late:
        return "-"
    return f"p50 {_seconds(median(late)):<6}  max {_seconds(max(late)):<6}"


def size(count: int) -> str:
    """Return a number of bytes as text."""
    if count < 1 << 20:
        return f"{count / (1 << 10):.1f} KiB"
    return f"{count / (1 << 20):.1f} MiB"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
