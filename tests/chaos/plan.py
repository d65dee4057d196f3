# SPDX-License-Identifier: Apache-2.0
"""What happens in a run, drawn from its seed alone: the lives of images, and the faults."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

SCRUB_TIME = 6
CLAIM_TIMEOUT = 10
AGENTS = 3
#: Where the agents are a group: deletes per second and at once, and how long a membership lasts.
#: The rate is about what falls due, most of it in bursts.
GROUP_RATE = 6.0
GROUP_BURST = 2.0
MEMBERSHIP_TIMEOUT = 5


class Act(Enum):
    """What is done to an image."""

    CREATE = "create"
    DELETE = "delete"
    RESTORE = "restore"
    HOLD = "hold"
    RELEASE = "release"
    PURGE = "purge"
    TAKE_OFF = "take off"  #: its second location
    FORGE = "forge"  #: an event that says it is deleted


@dataclass(frozen=True)
class Step:
    """An act, and how long after the one before it."""

    after: float
    act: Act


@dataclass(frozen=True)
class Life:
    """An image.

    :param born: seconds after the run's start.
    :param by_api: through Glance's API; else by SQL, in the form that Glance leaves.
    :param visibility: glance-scrubber does not see `community`: what it would do wrong, such as to
        delete what is restored under its hands, is not evscrub's fault.
    :param event: what becomes of the events of its deletions.
    """

    image_id: str
    born: float
    by_api: bool
    stores: tuple[str, ...]
    visibility: str
    owner: str
    event: str
    steps: tuple[Step, ...] = field(default=())


@dataclass(frozen=True)
class Fault:
    """A fault.

    :param start: seconds after the run's start.
    :param kind: a method of `Faults`.
    :param seconds: how long it lasts.
    :param agent: which agent it befalls.
    :param value: what else it needs: a clock's error, a store's slowness.
    """

    start: float
    kind: str
    seconds: float
    agent: int
    value: float

    def __str__(self) -> str:
        return f"{self.kind} agent{self.agent} for {self.seconds:.1f} s ({self.value:+.0f})"


AGENT_FAULTS = ("kill", "stop_short", "stop_long", "terminate", "clock")
OTHER_FAULTS = (
    "broker_down",
    "broker_purge",
    "broker_cut",
    "database_down",
    "database_cut",
    "store_failing",
    "store_throttling",
    "store_slow",
    "store_cutting",
    "files_away",
    "files_read_only",
)
#: What befalls a group, whose store is to be counted: it works, and delays nothing.
GROUP_FAULTS = (
    "broker_down",
    "broker_cut",
    "database_cut",
    "coordinator_down",
    "coordinator_stalled",
    "coordinator_emptied",
)
_SECONDS = {"stop_long": (12.0, 16.0), "stop_short": (1.0, 4.0), "database_down": (0.5, 2.0)}
_SECONDS |= {"coordinator_down": (4.0, 15.0), "coordinator_stalled": (3.0, 10.0)}


@dataclass(frozen=True)
class Plan:
    """A run's plan.

    :param seconds: how long things happen; what follows is rest.
    """

    seed: int
    seconds: float
    lives: tuple[Life, ...]
    faults: tuple[tuple[Fault, ...], ...]


def make_plan(seed: int, seconds: float, *, group: bool = False) -> Plan:
    """Draw a run.

    :param group: whether the agents are a group that keeps a rate.
    """
    chance = random.Random(seed)
    lives = tuple(_life(chance, seconds) for _ in range(int(seconds * 5)))
    tracks = (
        tuple(_track(chance, AGENT_FAULTS, seconds)),
        tuple(_track(chance, GROUP_FAULTS if group else OTHER_FAULTS, seconds)),
    )
    return Plan(seed, seconds, tuple(sorted(lives, key=lambda life: life.born)), tracks)


def _track(chance: random.Random, kinds: tuple[str, ...], seconds: float) -> Iterator[Fault]:
    """Faults one after another, each kind as often as the others."""
    start = chance.uniform(2, 4)
    bag: list[str] = []
    while start < seconds - 3:
        if not bag:
            bag = list(kinds)
            chance.shuffle(bag)
        kind = bag.pop()
        lasts = chance.uniform(*_SECONDS.get(kind, (2.0, 6.0)))
        value = chance.choice((-60.0, 60.0)) if kind in AGENT_FAULTS else chance.uniform(0.3, 2.5)
        yield Fault(start, kind, lasts, chance.randrange(AGENTS), value)
        start += lasts + chance.uniform(0.3, 2.0)


def _life(chance: random.Random, seconds: float) -> Life:
    by_api = chance.random() < 0.1
    stores: tuple[str, ...] = ("objects",)
    if not by_api:
        stores = chance.choice(
            (
                ("objects",),
                ("objects",),
                ("files",),
                ("objects", "files"),
                ("objects", "copies"),
            )
        )
    unseen = "files" in stores or len(stores) == 2 or chance.random() < 0.4
    born = chance.uniform(0, max(1.0, seconds - 8))
    if chance.random() < 0.5:
        born -= born % 5.0  # in bursts, so that there is always something under way
    return Life(
        image_id=str(uuid.UUID(int=chance.getrandbits(128), version=4)),
        born=born,
        by_api=by_api,
        stores=stores,
        visibility="community" if unseen else chance.choice(("shared", "private", "public")),
        owner=f"owner{chance.randrange(4)}",
        event=chance.choices(("once", "dropped", "doubled", "delayed"), (6, 2, 2, 2))[0],
        steps=tuple(_steps(chance, unseen=unseen, two=len(stores) == 2)),
    )


def _steps(chance: random.Random, *, unseen: bool, two: bool) -> Iterator[Step]:
    # Around the moment at which it falls due where only evscrub sees it, else well before.
    late = SCRUB_TIME + 3.0 if unseen else 2.0
    if two and chance.random() < 0.3:
        yield Step(chance.uniform(0, 2), Act.TAKE_OFF)
    if chance.random() < 0.15:
        yield Step(chance.uniform(0, 2), Act.FORGE)
    if chance.random() < 0.06:
        return
    yield Step(chance.choice((0.0, chance.uniform(0, 4))), Act.DELETE)
    yield from _afterlife(chance, late)


def _afterlife(chance: random.Random, late: float) -> Iterator[Step]:
    """What an operator does to a deleted image."""
    while (fate := chance.random()) < 0.45:
        if fate < 0.05:
            yield Step(chance.uniform(0, SCRUB_TIME + 4), Act.PURGE)
            return
        if fate < 0.25:
            yield Step(chance.uniform(0, late), Act.HOLD)
            if chance.random() < 0.2:
                return
            if chance.random() < 0.6:
                yield Step(chance.uniform(1, 10), Act.RELEASE)
                continue
        yield Step(chance.uniform(0, late), Act.RESTORE)
        if chance.random() < 0.25:
            return
        yield Step(chance.uniform(0, 4), Act.DELETE)
