# SPDX-License-Identifier: Apache-2.0
"""Stores that cannot be used are loaded again in time, and their images are not forgotten."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from evscrub.domain.decisions import LocationRow
from evscrub.domain.verdict import STORE_CANNOT_DELETE, STORE_NOT_LOADED, StoreNotUsableError
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.stores.backends import Target
from evscrub.stores.faults import Fault
from evscrub.stores.reloads import StoreReloads
from tests.unit.simulated_loop import run
from tests.unit.world import World, fast, simulated_threads


class BrokenWorld(World):
    """A world whose store b cannot be used until a time, and takes so long to find out."""

    def __init__(self, usable_at: float, load_seconds: float = 0.0) -> None:
        super().__init__(a=fast, b=fast)
        self.usable_at = usable_at
        self.load_seconds = load_seconds
        self.loaded_at: list[float] = []
        self.faults = {"b": Fault(STORE_NOT_LOADED, "it needs os_brick")}

    def load(self) -> set[str]:
        self.loaded_at.append(anyio.current_time())
        if "b" in self.faults and anyio.current_time() >= self.usable_at:
            del self.faults["b"]
            return {"b"}
        return set()

    def resolve(self, row: LocationRow) -> Target:
        if row.value.startswith("b:") and (fault := self.faults.get("b")):
            raise StoreNotUsableError(fault.reason, fault.hint, "b")
        return super().resolve(row if row.store else row._replace(store=row.value[0]))


def keep_loading(world: BrokenWorld) -> Any:
    """Return what an agent does about its stores beside its scrubber."""

    async def reloads(scrubber: Scrubber) -> None:
        stores: Any = world
        with anyio.move_on_after(1000):
            await StoreReloads(stores, scrubber.try_parked).run()

    return reloads


@pytest.mark.costly
def test_parked_images_are_scrubbed_once_the_store_loads(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Long before they would be looked at again, and those of the other store at once."""
    caplog.set_level(logging.INFO, "evscrub")
    world = BrokenWorld(usable_at=150)
    broken = [world.add("o", "b") for _ in range(1200)]
    # A row of before there were several stores does not name its.
    image, rows = world._images[broken[-1]]
    world._images[image.id] = (image, [rows[0]._replace(store=None)])
    mixed = world.add("o", "b", "a")
    good = [world.add("o", "a") for _ in range(10)]
    seen: list[Any] = []

    async def watch(scrubber: Scrubber) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_loading(world), scrubber)
            await anyio.sleep(100)
            seen.extend(map(world.status, good))
            seen.append(world.left(mixed))
            troubles = [scrubber._record.troubles[image_id] for image_id in broken]
            assert all(one.parked and one.store == "b" for one in troubles)
            assert {one.verdict.hint for one in troubles} == {"it needs os_brick"}
            lines = [r.getMessage() for r in caplog.records if "not scrubbed" in r.getMessage()]
            assert len(lines) == 1
            assert "1201 images are not scrubbed from store b (store not loaded)" in lines[0]
            assert f"one of them is {broken[0]}: it needs os_brick; next" in lines[0]
            await anyio.sleep(100)
            seen.extend(map(world.status, [*broken, mixed]))
            tasks.cancel_scope.cancel()

    world.run(300, watch)
    assert world.loaded_at[:3] == pytest.approx([60, 120, 180], abs=1)
    assert seen == ["deleted"] * 10 + [{"b"}] + ["deleted"] * 1201
    said = [r.getMessage() for r in caplog.records if r.name == "evscrub.stores.reloads"]
    assert len(said) == 2
    assert said[0].startswith("Store b cannot be used: it needs os_brick. Its images are parked")
    assert said[1] == "Loaded stores: b; retrying 1201 images that were parked because of them"


def test_soon_retries_immediately_and_each_fault_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "evscrub")
    world = BrokenWorld(usable_at=10)
    tried: list[set[str]] = []

    async def try_parked(stores: Any) -> int:
        tried.append(set(stores))
        return 0

    async def main() -> None:
        stores: Any = world
        reloads = StoreReloads(stores, try_parked)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reloads.run)
            await anyio.sleep(1)
            reloads.soon()
            await anyio.sleep(1)
            world.faults["b"] = Fault(STORE_CANNOT_DELETE, "set another option")
            reloads.soon()
            await anyio.sleep(8)
            reloads.soon()
            await anyio.sleep(61)
            tasks.cancel_scope.cancel()

    with simulated_threads():
        run(main)
    assert world.loaded_at == pytest.approx([1, 2, 10, 70], abs=0.1)
    # Once more the next time, for images that were about to be parked.
    assert tried == [set(), set(), {"b"}, {"b"}]
    said = [r.getMessage() for r in caplog.records]
    assert [line.partition(".")[0] for line in said] == [
        "Store b cannot be used: it needs os_brick",
        "Store b cannot be used: set another option",
        "Loaded stores: b; retrying 0 images that were parked because of them",
    ]
