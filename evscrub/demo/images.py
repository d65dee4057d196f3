# SPDX-License-Identifier: Apache-2.0
"""The demo's images: who owns them, which are deleted, and when. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

OWNERS = ("alice", "bob", "carol", "dave")
#: Who deletes many images at once.
STORM_OWNER = "dave"
#: Glance's own scrubber never sees the community's.
VISIBILITIES = ("private", "shared", "community", "public")
STORES = ("fast", "archive")
MIN_IMAGES = 10

_KEPT_PART = 5  # one image in so many is kept
_STORM_PART = 3  # and of those that are deleted, one in so many goes in the storm
_KIB = 1024
_SMALLEST, _LARGEST = 16 * _KIB, 512 * _KIB
_MOST_BYTES = 256 * 1024 * _KIB


class Fate(Enum):
    """What becomes of an image."""

    KEPT = "kept"
    DELETED = "deleted"
    LOST = "lost"  #: deleted while Glance is told not to notify
    STORM = "storm"  #: deleted at once with others


@dataclass(frozen=True, slots=True)
class Plan:
    """An image as it is to be made.

    :param seed: makes its data, so that it need not be held to compare with.
    """

    name: str
    owner: str
    visibility: str
    store: str
    size: int
    seed: int
    fate: Fate

    @property
    def data(self) -> bytes:
        """The image's bytes, the same ones each time."""
        return random.Random(self.seed).randbytes(self.size)


def plan(count: int, seed: int) -> list[Plan]:
    """Plan images.

    :param count: how many, at least :data:`MIN_IMAGES`.
    :param seed: makes sizes and data.
    """
    chance = random.Random(seed)
    largest = max(_SMALLEST, min(_LARGEST, 2 * _MOST_BYTES // count))
    plans = []
    for number, fate in enumerate(_fates(count)):
        turn = number // len(OWNERS)
        owner = STORM_OWNER if fate is Fate.STORM else OWNERS[number % len(OWNERS)]
        plans.append(
            Plan(
                name=f"{owner}-{number + 1}",
                owner=owner,
                visibility=VISIBILITIES[(number + turn) % len(VISIBILITIES)],
                store=STORES[turn % len(STORES)],
                size=chance.randint(_SMALLEST, largest),
                seed=chance.getrandbits(64),
                fate=fate,
            )
        )
    return plans


def schedule(fates: Sequence[Fate], seconds: float) -> list[tuple[float, int]]:
    """Say when to delete which image, in order; the storm breaks loose in the middle.

    :param seconds: how long the deletes take together.
    :returns: seconds from the first delete, and the image's place in `fates`.
    """
    steady = [n for n, fate in enumerate(fates) if fate in {Fate.DELETED, Fate.LOST}]
    step = seconds / max(1, len(steady) - 1)
    times = [(place * step, number) for place, number in enumerate(steady)]
    times += [(seconds / 2, number) for number, fate in enumerate(fates) if fate is Fate.STORM]
    return sorted(times)


def _fates(count: int) -> list[Fate]:
    kept = max(1, count // _KEPT_PART)
    fates = [
        Fate.KEPT if number * kept // count != (number + 1) * kept // count else Fate.DELETED
        for number in range(count)
    ]
    deleted = [number for number, fate in enumerate(fates) if fate is Fate.DELETED]
    for number in deleted[-max(1, len(deleted) // _STORM_PART) :]:
        fates[number] = Fate.STORM
    fates[deleted[1]] = Fate.LOST
    return fates
