# SPDX-License-Identifier: Apache-2.0
"""Plan the demo's images: their owners, which are deleted, and when. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

OWNERS = ("alice", "bob", "carol", "dave")
#: The owner who deletes many images at once.
STORM_OWNER = "dave"
#: Community images are included because Glance's own scrubber never sees them.
VISIBILITIES = ("private", "shared", "community", "public")
STORES = ("fast", "archive")
MIN_IMAGES = 10

_KEPT_PART = 5  # one image in 5 is kept
_STORM_PART = 3  # one in 3 of the deleted images belongs to the mass deletion
_KIB = 1024
_SMALLEST, _LARGEST = 16 * _KIB, 512 * _KIB
_MOST_BYTES = 256 * 1024 * _KIB


class Fate(Enum):
    """What happens to an image."""

    KEPT = "kept"
    DELETED = "deleted"
    LOST = "lost"  #: deleted while Glance's notifications are disabled
    STORM = "storm"  #: deleted together with many others


@dataclass(frozen=True, slots=True)
class Plan:
    """An image to create.

    :param size: size in bytes.
    :param seed: seed of its data, which therefore need not be kept for comparison.
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
        """The image's bytes, identical on each access."""
        return random.Random(self.seed).randbytes(self.size)


def plan(count: int, seed: int) -> list[Plan]:
    """Plan images.

    :param count: number of images, at least :data:`MIN_IMAGES`.
    :param seed: seed of sizes and data.
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
    """Schedule the deletes in order, with the mass deletion in the middle.

    :param seconds: duration of all deletes together.
    :returns: pairs of the seconds since the first delete and the image's index in `fates`.
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
