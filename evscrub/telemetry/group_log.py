# SPDX-License-Identifier: Apache-2.0
"""Decides when to log what many images have in common: one line for all of them. Pure."""

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

#: How long the first line of a group waits, for images that come together.
FIRST_SECONDS = 1.0
#: Between two lines of a group.
REPEAT_SECONDS = 60.0


@dataclass(slots=True)
class _Group:
    """What was added since the last line.

    :param due_at: when the next line may be written, with what there is by then.
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
    """Images by what happened to them; times in seconds, all on one clock.

    A group's first line comes :data:`FIRST_SECONDS` after its first image, any other at least
    :data:`REPEAT_SECONDS` after the one before. Groups must be few: a line's time is remembered.
    """

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group] = {}
        self._told_at: dict[Hashable, float] = {}

    def add(
        self, group: Hashable, level: int, image_id: str, text: str, detail: str, now: float
    ) -> None:
        """Add an image.

        :param text: what all images of the group are, such as "not scrubbed from store a".
        :param detail: what may be true of this image alone; the line has that of the image that it
            names.
        """
        entry = self._groups.get(group)
        if entry is None:
            told_at = self._told_at.get(group, -math.inf)
            due_at = max(now + FIRST_SECONDS, told_at + REPEAT_SECONDS)
            entry = self._groups[group] = _Group(level, image_id, text, detail, due_at)
        entry.count += 1

    @property
    def next_due(self) -> float:
        """When the next line is due, infinite without any."""
        return min((entry.due_at for entry in self._groups.values()), default=math.inf)

    def due(self, now: float) -> Iterator[GroupLine]:
        """Yield the lines that are due; an infinite time yields all that there are."""
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
