# SPDX-License-Identifier: Apache-2.0
"""A sweep's pages hold every image to look at, whatever the size of a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.pool import StaticPool

from evscrub.registry.pages import Pages, Window
from evscrub.registry.tables import image_locations, images, metadata

NOW = datetime(2026, 3, 1, 12)
#: What is older is due, or stale; what is newer is not.
LIMIT = NOW - timedelta(hours=1)
OLD, NEW = LIMIT, LIMIT + timedelta(seconds=1)


@dataclass(frozen=True)
class State:
    """Rows of an image; `moment` is when its location was changed last.

    :param wanted: whether a sweep must find it.
    """

    status: str
    deleted: bool
    deleted_at: datetime | None
    location: str
    moment: datetime
    wanted: bool


PENDING_DUE = State("pending_delete", True, OLD, "pending_delete", OLD, True)
CLAIM_EXPIRED = State("deleted", True, OLD, "pending_delete", OLD, True)
STATES = {
    "due": PENDING_DUE,
    "due later": State("pending_delete", True, NEW, "pending_delete", OLD, False),
    "held": State("pending_delete", True, None, "pending_delete", OLD, False),
    "claimed": State("deleted", True, OLD, "pending_delete", NEW, False),
    "claim expired": CLAIM_EXPIRED,
    "settled": State("deleted", True, OLD, "deleted", OLD, False),
    "live": State("active", False, None, "active", OLD, False),
    "location taken off": State("active", False, None, "pending_delete", OLD, True),
    "location just taken off": State("active", False, None, "pending_delete", NEW, False),
}


class Registry:
    """Images in memory; each has one location.

    :param states: of each image, in the order of their ids.
    :param changed: when each image changed last; all at `OLD` without it.
    """

    def __init__(self, states: Sequence[State], changed: Sequence[datetime] = ()) -> None:
        self.engine = sa.create_engine("sqlite://", poolclass=StaticPool)
        metadata.create_all(self.engine)
        self.wanted = {name(n) for n, state in enumerate(states) if state.wanted}
        with self.engine.begin() as connection:
            for number, state in enumerate(states):
                image = {
                    "id": name(number),
                    "status": state.status,
                    "deleted": state.deleted,
                    "deleted_at": state.deleted_at,
                    "updated_at": changed[number] if changed else OLD,
                }
                location = {
                    "image_id": name(number),
                    "status": state.location,
                    "deleted": state.location != "active",
                    "updated_at": state.moment,
                }
                connection.execute(sa.insert(images).values(image))
                connection.execute(sa.insert(image_locations).values(location))

    def sweep(
        self, page_rows: int, *, start_at: str = "", since: datetime | None = None
    ) -> list[str]:
        """Return the images that a sweep finds, in its order."""
        database: Any = SimpleNamespace(reading=self.engine.begin)
        window = Window(LIMIT, LIMIT, changed_since=since, start_at=start_at)
        pages = list(Pages(database, page_rows).read(window))
        self.engine.dispose()
        assert all(len(page) <= page_rows for page in pages)
        return [found.image_id for page in pages for found in page]


def name(number: int) -> str:
    return f"image-{number:03}"


_STATES = st.lists(st.sampled_from(sorted(STATES)).map(STATES.__getitem__), max_size=12)


@given(_STATES, st.integers(1, 5), st.integers(0, 12))
def test_a_full_sweep_finds_each_once_wherever_it_begins(
    states: list[State], page_rows: int, first: int
) -> None:
    registry = Registry(states)
    counts = Counter(registry.sweep(page_rows, start_at=name(first) if first else ""))
    assert counts == dict.fromkeys(registry.wanted, 1)


def test_full_sweep_starts_at_the_given_id() -> None:
    registry = Registry([PENDING_DUE] * 5)
    assert registry.sweep(2, start_at=name(3)) == [name(n) for n in (3, 4, 0, 1, 2)]


def test_leftovers_on_both_sides_of_a_page_border_are_found() -> None:
    registry = Registry([CLAIM_EXPIRED] * 6)
    assert registry.sweep(2) == [name(n) for n in range(6)]


@given(_STATES, st.integers(1, 5), st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_a_sweep_of_recent_changes_finds_each_once(
    states: list[State], page_rows: int, seconds: list[int]
) -> None:
    """Many images change in one second, so pages begin and end within one."""
    since = OLD + timedelta(seconds=1)
    changed = [OLD + timedelta(seconds=number) for number in seconds]
    registry = Registry(states, changed)
    recent = {name(n) for n, moment in enumerate(changed) if moment >= since}
    counts = Counter(registry.sweep(page_rows, since=since))
    assert counts == dict.fromkeys(registry.wanted & recent, 1)
