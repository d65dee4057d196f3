# SPDX-License-Identifier: Apache-2.0
"""Slow claims, on a registry and stores in memory."""

from __future__ import annotations

from collections.abc import Collection

import anyio
import pytest

from evscrub.domain.decisions import LocationRow, Policy
from evscrub.domain.verdict import Verdict
from evscrub.registry.claims import Seen
from evscrub.scrubbing.scrubber import Scrubber
from tests.unit.simulated_loop import skip
from tests.unit.world import SETTINGS, World, fast

TIMEOUT_SECONDS = SETTINGS.policy.claim_timeout.total_seconds()


class SlowWorld(World):
    """A world whose registry is slow at the first claim, or at the query for shared data."""

    claim_seconds = 0.0
    sharing_seconds = 0.0

    def claim(self, image_ids: Collection[str], policy: Policy) -> Seen:
        seen = super().claim(image_ids, policy)
        skip(self.claim_seconds)
        self.claim_seconds = 0.0
        return seen

    def among(self, rows: Collection[LocationRow]) -> dict[int, Verdict]:
        skip(self.sharing_seconds)
        self.sharing_seconds = 0.0
        return {}


@pytest.mark.parametrize("step", ["claim_seconds", "sharing_seconds"])
@pytest.mark.parametrize(("part", "lost"), [(0.6, 0), (0.7, 1)])
def test_lease_age_starts_before_the_claim_query(step: str, part: float, lost: int) -> None:
    """The lease may be stamped right after the request, and be old when the answer arrives."""
    world = SlowWorld(a=fast)
    setattr(world, step, part * TIMEOUT_SECONDS)
    image_id = world.add("o", "a")
    leases_lost: list[int] = []

    async def watch(scrubber: Scrubber) -> None:
        await anyio.sleep(TIMEOUT_SECONDS)
        leases_lost.append(scrubber._record.leases_lost)

    world.run(2 * TIMEOUT_SECONDS, watch, idle=True)
    assert leases_lost == [lost]
    assert world.status(image_id) == "deleted"
    assert len(world.asked) == 1
