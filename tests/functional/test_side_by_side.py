# SPDX-License-Identifier: Apache-2.0
"""Two agents on one registry, as Prometheus sees them: the dashboard's figures, and the alerts."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from evscrub.domain.address import Address, parse
from evscrub.status import client
from tests.functional import store_servers
from tests.functional.agents import AgentProcess, wait_for
from tests.functional.prometheus import FIRING, Samples, Timeline, down, firing, scrape
from tests.functional.store_servers import (
    FakeLibraries,
    Location,
    Site,
    SiteFactory,
    StoreServer,
    s3_options,
    s3_url,
)
from tests.unit.monitoring import panels

memory_s3 = store_servers.memory_s3
new_site = store_servers.new_site

Agents = Mapping[str, AgentProcess]

#: Numbers of images, and the bytes of each.
WAITING, TWICE, LATER, HELD, PARKED, IN_USE, DUE, SIZE = 3, 2, 7, 2, 2, 1, 5, 4
FAILING = 9
HOUR = 3600.0
#: What shows each trouble in an agent's metrics, and from which value on.
TROUBLES = {
    "EvscrubBacklogOverdue": (r"evscrub_oldest_due_age_seconds{", 1801),
    "EvscrubStoreFailing": (r'evscrub_breaker_state{.*state="(open|probing)", store="cloud"', 1),
    "EvscrubStorePaused": (r'evscrub_breaker_state{.*state="blown", store="slow"', 1),
    "EvscrubOwnersStopped": (r'evscrub_lane_owners_stopped{.*store="ceph"', 1),
    "EvscrubImagesParked": (r"evscrub_registry_parked_images{", 1),
    "EvscrubImagesDamaged": (r"evscrub_registry_damaged_images{", 1),
    "EvscrubBusMissesImages": (r"evscrub_missed_by_bus_total{", 1),
}


def test_figures_add_up_and_alerts_fire_and_clear(
    libraries: FakeLibraries, memory_s3: StoreServer, new_site: SiteFactory, tmp_path: Path
) -> None:
    site = new_site(
        {"fast": "file", "slow": "file", "cloud": "s3", "ceph": "rbd"}, cloud=s3_options(memory_s3)
    )
    scene = Scene(site, memory_s3)
    scene.seed()
    timeline = Timeline()
    with site.agent() as one, site.agent() as two:
        agents = {"a": one, "b": two}
        wait_for("the same of both", lambda: all(map(knows_all, agents.values())))
        wait_for("scrubbing", lambda: site.images.statuses()["deleted"] == DUE)
        first = scrapes_at_rest(agents)
        check_dashboard(tmp_path, first)
        began = timeline.add(5, *first) + 1
        scene.make_trouble(agents)
        troubled = scrapes_once(agents, set(TROUBLES))
        fired = timeline.add(20, *troubled)
        scene.repair(agents)
        for agent in agents.values():
            client.retry(address(agent), {"all": True})
        quiet = scrapes_once(agents, {"EvscrubBusMissesImages"})
        stuck = timeline.add(90, *quiet)
        well = timeline.add(2, *scrapes(agents))
        two.stop()
        one_down = timeline.add(6, *scrapes({"a": one}), down("b"))
    both_down = timeline.add(6, down("a"), down("b"))
    timeline.check(
        tmp_path,
        [
            (began - 1, FIRING, {}),
            (fired, FIRING, firing(*TROUBLES)),
            # What the bus missed is told for an hour.
            (began + 59, FIRING, firing("EvscrubBusMissesImages")),
            (began + 60, FIRING, {}),
            # Neither agent has swept since, by what they said.
            (stuck, FIRING, firing("EvscrubNoSweep")),
            (well, FIRING, {}),
            (one_down, FIRING, firing("EvscrubAgentDown")),
            (both_down, FIRING, firing("EvscrubAgentDown", "EvscrubNoAgent")),
        ],
    )


class Scene:
    """The images that two agents find, and what goes wrong with them."""

    def __init__(self, site: Site, s3: StoreServer) -> None:
        self._site = site
        self._images = site.images
        self._s3 = s3
        self._missing: list[Location] = []
        self._parked: list[str] = []
        self._damaged = ""

    def seed(self) -> None:
        """Add images of each state."""
        images = self._images
        images.add_many([[self._file()] for _ in range(WAITING)], age=-600)
        both = [[self._file("slow"), self._rbd("twice")] for _ in range(TWICE)]
        images.add_many(both, age=-600)
        images.add_many([[self._file()] for _ in range(LATER)], age=-24 * HOUR)
        for held in images.add_many([[self._file()] for _ in range(HELD)]):
            images.execute("UPDATE images SET deleted_at = NULL WHERE id = :id", id=held)
        nowhere = [[self._file("nowhere")] for _ in range(PARKED)]
        self._parked = images.add_many(nowhere)
        images.add_many([[self._rbd("busy")] for _ in range(IN_USE)])
        self._damaged = images.add(self._file(), status="active")
        self._add(self._files(DUE))

    def _file(self, store: str = "fast") -> Location:
        """Return the location of a file that is not there."""
        return Location(store, f"file://{self._site.path(str(uuid.uuid4()), store)}")

    def _rbd(self, name: str) -> Location:
        return Location("ceph", f"rbd://fsid/images/{name}{uuid.uuid4()}/snap")

    def make_trouble(self, agents: Agents) -> None:
        """Let an image come without a notification, and let each store fail in its own way."""
        time.sleep(1.0)  # Glance's times are in whole seconds
        self._add(self._files(1), age=-1.0)
        self._s3.behave(refuse=500)
        # However two agents divide them, one meets the five failures that stop a store or an owner.
        self._add([Location("cloud", s3_url(self._s3, f"x{n}")) for n in range(FAILING)])
        self._add([self._rbd("broken") for _ in range(FAILING)], owner="another")
        self._add([self._rbd("fine") for _ in range(3)])
        # The directory of slow is empty, as if it were not mounted: each agent pauses it for the
        # image that it tries, and the last image waits for both.
        self._add_missing()
        wait_for("one paused", lambda: any(map(has_paused, agents.values())))
        self._add_missing()
        wait_for("both paused", lambda: all(map(has_paused, agents.values())))
        self._add_missing()

    def _add_missing(self) -> None:
        location = self._file("slow")
        self._missing.append(location)
        self._add([location])

    def repair(self, agents: Agents) -> None:
        """Repair everything, and tell the agents."""
        images, site = self._images, self._site
        for location in self._missing:
            site.file(location.url.rpartition("/")[2], "slow")
        self._s3.behave()
        images.execute("UPDATE image_locations SET value = replace(value, '/broken', '/fine')")
        for image_id in self._parked:
            images.execute(
                "UPDATE image_locations SET value = :url, meta_data = :named WHERE image_id = :id",
                url=site.file(image_id, "fast"),
                named='{"store": "fast"}',
                id=image_id,
            )
        images.execute(
            "UPDATE image_locations SET status = 'deleted' WHERE image_id = :id", id=self._damaged
        )
        # Two full sweeps do not find it.
        for interval in (2, 1):
            for agent in agents.values():
                agent.options["sweep"]["interval"] = interval
                seen = len(agent.log)
                agent.reload()
                agent.wait_for_log("Sweep (full)", after=seen)
        wait_for("the end of it", partial(self._is_scrubbed_by, agents))

    def _is_scrubbed_by(self, agents: Agents) -> bool:
        """Let the agents look at the failed images now; return whether all is scrubbed."""
        # Those that one has claimed, the other would look at after the claim's time.
        for agent in agents.values():
            client.retry(address(agent), {"all": True})
        return self._images.statuses()["pending_delete"] == WAITING + TWICE + LATER + HELD + IN_USE

    def _files(self, count: int) -> list[Location]:
        """Return the locations of files that are there."""
        return [Location("fast", self._site.file(str(uuid.uuid4()), "fast")) for _ in range(count)]

    def _add(
        self, locations: Sequence[Location], age: float = 2 * HOUR, owner: str = "owner"
    ) -> None:
        added = self._images.add_many([[one] for one in locations], age=age, owner=owner)
        for image_id in added:  # as if changed by now, so that the next sweep finds it
            self._images.execute(
                "UPDATE images SET updated_at = strftime('%Y-%m-%d %H:%M:%f000', 'now')"
                " WHERE id = :id",
                id=image_id,
            )


def address(agent: AgentProcess) -> Address:
    found = parse(str(agent.options["status"]["listen"]))
    assert found is not None
    return found


def knows_all(agent: AgentProcess) -> bool:
    """Return whether an agent has met all images in trouble, without having it count them."""
    states = sorted(str(told["state"]) for told in client.troubles(address(agent)))
    return states == ["damaged"] + ["in use"] * IN_USE + ["parked"] * PARKED


def has_paused(agent: AgentProcess) -> bool:
    return "EvscrubStorePaused" in shown(scrape(address(agent).port, "any"))


def scrapes(agents: Agents) -> list[Samples]:
    return [scrape(address(agent).port, name) for name, agent in agents.items()]


def scrapes_once(agents: Agents, troubles: set[str]) -> list[Samples]:
    """Return what the agents say once these are the troubles that any of them shows."""
    found: list[Samples] = []

    def ask() -> bool:
        found[:] = scrapes(agents)
        return set().union(*map(shown, found)) == troubles

    try:
        wait_for("troubles", ask)
    except TimeoutError:
        assert set().union(*map(shown, found)) == troubles
    return found


def scrapes_at_rest(agents: Agents) -> list[Samples]:
    """Return what the agents say when all is counted and none waits for a claim of the other."""
    found: list[Samples] = []

    def ask() -> bool:
        found[:] = scrapes(agents)
        return all(is_counted(one) and waits_for_no_lease(one) for one in found)

    wait_for("counts without a lease", ask)
    return found


def is_counted(found: Samples) -> bool:
    return any(name.startswith("evscrub_registry_pending_bytes{") for name in found)


def waits_for_no_lease(found: Samples) -> bool:
    """Return whether an agent has nothing in memory but what both have.

    An image that it met while the other agent had claimed it waits until that claim would expire.
    """
    waiting = sum(value for name, value in found.items() if name.startswith("evscrub_waiting{"))
    return waiting == WAITING + TWICE


def shown(found: Samples) -> set[str]:
    """Return the troubles that an agent's metrics show."""
    return {
        alert
        for alert, (pattern, least) in TROUBLES.items()
        if any(value >= least and re.match(pattern, name) for name, value in found.items())
    }


def check_dashboard(directory: Path, found: Sequence[Samples]) -> None:
    """Check what the dashboard shows of two agents, the period being ten minutes."""
    timeline = Timeline()
    restarted = [
        {name: 0.0 if "_total{" in name else value for name, value in one.items()} for one in found
    ]
    timeline.add(2, *restarted)
    now = timeline.add(10, *found)
    pending = WAITING + TWICE + LATER + HELD + PARKED + IN_USE
    fast = (WAITING + LATER + HELD) * SIZE
    wanted: dict[str, list[Mapping[str, float]]] = {
        "Pending": [{"{}": pending}],
        "Due": [{"{}": PARKED + IN_USE}],
        "Held": [{"{}": HELD}],
        "Parked": [{"{}": PARKED}],
        "In use": [{"{}": IN_USE}],
        "Damaged": [{"{}": 1}],
        "Space pending": [
            {
                '{store="fast"}': fast,
                # An image with two locations takes space in both stores.
                '{store="slow"}': TWICE * SIZE,
                '{store="ceph"}': (TWICE + IN_USE) * SIZE,
                '{store="cloud"}': 0,
                '{store="(none)"}': PARKED * SIZE,
            }
        ],
        "Images pending": [{"{}": pending}, {"{}": PARKED + IN_USE}, {"{}": HELD}, {"{}": LATER}],
        "Failed images": [
            {'{store="(none)", reason="store_not_enabled"}': PARKED},
            {'{store="ceph", reason="in_use"}': IN_USE},
            {},
        ],
        # Each agent has these in memory.
        "Waiting": [{"{}": 2 * (WAITING + TWICE)}],
        "In work": [{"{}": 0}],
        "Scrubbed in this period": [{"{}": DUE}],
        "Freed in this period": [{"{}": DUE * SIZE}],
    }
    shown = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in panels()}
    timeline.check(
        directory,
        [
            (now, concrete(expression), samples)
            for title, expected in wanted.items()
            for expression, samples in zip(shown[title], expected, strict=True)
        ],
    )


def concrete(expression: str) -> str:
    """Return an expression of the dashboard with Grafana's variables replaced."""
    text = expression.replace("$job", "evscrub").replace("$instance", ".*")
    return re.sub(r"\$__\w+", "10m", text)
