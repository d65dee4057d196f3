# SPDX-License-Identifier: Apache-2.0
"""What there is to see of the demo at one moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Frame:
    """The demo at one moment.

    :param act: what goes on, in words.
    :param unheard: images deleted that the agent does not know of.
    :param falls_due: seconds from now at which images fall due.
    :param late: seconds that each scrubbed image was late, latest last.
    :param owners: images scrubbed and to be deleted, by owner.
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
    """Say how late images were."""
    if not late:
        return "-"
    return f"p50 {_seconds(median(late)):<6}  max {_seconds(max(late)):<6}"


def size(count: int) -> str:
    """Write a number of bytes for people."""
    if count < 1 << 20:
        return f"{count / (1 << 10):.1f} KiB"
    return f"{count / (1 << 20):.1f} MiB"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
