# SPDX-License-Identifier: Apache-2.0
"""Log one line for many images with something in common. Pure."""

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

#: Delay of a group's first line, to include images that come together.
FIRST_SECONDS = 1.0
#: Shortest time between two lines of a group.
REPEAT_SECONDS = 60.0


@dataclass(slots=True)
class _Group:
    """Images added to a group since its last line.

    :param due_at: when the next line is due.
    """

    level: int
    image_id: str
    text: str
    detail: str
    due_at: float
    count: int = 0


@dataclass(frozen=True, slots=True)
class GroupLine:
    """A line to log, at a level of :mod:`logging`."""

    level: int
    text: str


class GroupLog:
    """Group images by what happened to them. All times are seconds on one clock.

    The first line of a group is due :data:`FIRST_SECONDS` after its first image, each further line
    at least :data:`REPEAT_SECONDS` after the one before. Use a bounded number of groups: the time
    of each group's last line is kept.
    """

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group] = {}
        self._told_at: dict[Hashable, float] = {}

    def add(
        self, group: Hashable, level: int, image_id: str, text: str, detail: str, now: float
    ) -> None:
        """Add an image to a group.

        :param level: a level of :mod:`logging`.
        :param text: what applies to all images of the group, such as "not scrubbed from store a".
        :param detail: what may apply to this image only; the line has the detail of the image that
            it names.
        """
        entry = self._groups.get(group)
        if entry is None:
            told_at = self._told_at.get(group, -math.inf)
            due_at = max(now + FIRST_SECONDS, told_at + REPEAT_SECONDS)
            entry = self._groups[group] = _Group(level, image_id, text, detail, due_at)
        entry.count += 1

    @property
    def next_due(self) -> float:
        """When the next line is due; infinite if no image was added."""
        return min((entry.due_at for entry in self._groups.values()), default=math.inf)

    def due(self, now: float) -> Iterator[GroupLine]:
        """Yield the due lines; with an infinite time, all lines."""
        for group in [group for group, entry in self._groups.items() if now >= entry.due_at]:
            entry = self._groups.pop(group)
            again = group in self._told_at
            self._told_at[group] = now
            if entry.count == 1:
                text = f"Image {entry.image_id} is {entry.text}"
            else:
                images = f"{entry.count} more images" if again else f"{entry.count} images"
                text = f"{images} are {entry.text}; one of them is {entry.image_id}"
            yield GroupLine(entry.level, f"{text}: {entry.detail}" if entry.detail else text)
