# SPDX-License-Identifier: Apache-2.0
"""Three agents on three nodes, an operator on one of them, and a judge of what was deleted."""

from __future__ import annotations

import random
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Self

from evscrub.demo.glance_config import GlanceConfig, write_config
from evscrub.domain.hold_rules import RefusedError
from evscrub.registry.holds import Holds
from tests.chaos.plan import SCRUB_TIME
from tests.chaos.rows import Rows, connect
from tests.chaos.site import DATABASE, ChaosAgent
from tests.chaos.store import BUCKET, ObjectStore, Request
from tests.chaos.watch import DEFECTS
from tests.functional.agents import wait_for
from tests.functional.store_servers import Images, Location
from tests.servers import Galera

_STORE = "objects"
#: Seconds that a delete takes.
_DELETE_SECONDS = 0.02
#: Seconds that everything may take.
_DEADLINE = 300.0
#: Images that nobody deletes.
_LIVE = 30
#: The operator picks one of so many that are next: agents claim them in the same moment.
_FRONT = 12


@dataclass(frozen=True)
class Tally:
    """What a case came to.

    :param refused: restores and holds that came after a claim.
    :param doubled: images of which a second delete was asked for.
    """

    images: int
    restored: int
    held: int
    refused: int
    doubled: int
    seconds: int

    @classmethod
    def heads(cls) -> Iterator[str]:
        """Return the names of the columns."""
        return (field.name for field in fields(cls))


class Scene:
    """Agents on the nodes of a cluster, and an object store that takes notes: a context manager.

    :param cluster: has Glance's tables in its database, and no image in them.
    :param directory: an empty folder.
    :param ports: where each agent has its database; by default each has a node of its own.
    """

    def __init__(
        self, cluster: Galera, directory: Path, ports: Sequence[int | None] = (None, None, None)
    ) -> None:
        self.cluster = cluster
        self.objects = ObjectStore(("agent",), delay=_DELETE_SECONDS)
        config = GlanceConfig(
            directory=directory / "glance",
            port=0,
            database_url=cluster.nodes[0].database_url(DATABASE),
            transport_url="kombu+memory://",
            stores={_STORE: "s3"},
            store_options={_STORE: self.objects.options(BUCKET)},
        )
        write_config(config)
        self.agents: list[ChaosAgent] = []
        for node, port in zip(cluster.nodes, ports, strict=True):
            folder = directory / f"agent{len(self.agents)}"
            folder.mkdir()
            url = node.database_url(DATABASE, port=port)
            self.agents.append(ChaosAgent(folder.name, folder, config, url))
        self._rows = [Rows(node.database_url(DATABASE)) for node in cluster.nodes]
        # Users and the operator are on the second node, which nothing befalls.
        url = cluster.nodes[1].database_url(DATABASE)
        self._images = Images(url)
        self._operator = self._rows[1]
        self._holds = Holds(connect(url))
        #: Objects by the ids of their images.
        self._due: Mapping[str, str] = {}
        self._live: Mapping[str, str] = {}
        self._kept: dict[str, set[str]] = {"restore": set(), "hold": set()}
        self._refused = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            stack.enter_context(self.objects)
            for agent in self.agents:
                stack.push(agent)
                agent.launch()
            for agent in self.agents:
                agent.wait_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._holds.database.dispose()
        for rows in self._rows:
            rows.engine.dispose()

    def play(
        self,
        images: int,
        fault: Callable[[], object] = lambda: None,
        *,
        excused: Collection[str] = (),
    ) -> Tally:
        """Let images fall due all at once, restore and hold a few meanwhile, and judge the end.

        :param images: how many.
        :param fault: what goes wrong meanwhile.
        :param excused: names of agents that may delete again what was deleted, or whose deletes
            others may repeat, for the fault keeps them from their database.
        """
        self._add(images)
        began = time.monotonic()
        with ThreadPoolExecutor() as pool:
            acts: list[Callable[[], object]] = [fault]
            acts += [partial(self._keep, act, images // 20) for act in self._kept]
            for done in [pool.submit(act) for act in acts]:
                done.result()
        self._wait_settled()
        seconds = round(time.monotonic() - began)
        self.cluster.wait_whole()
        doubled = self._judge_requests(excused)
        self._judge_rows()
        self._judge_logs()
        restored, held = (len(kept) for kept in self._kept.values())
        return Tally(images, restored, held, self._refused, doubled, seconds)

    def wait_deleted(self, share: float) -> None:
        """Wait until that share of the images that fell due is deleted, kept ones included."""
        wanted = len(self._due) * (1 - share) + _LIVE
        wait_for(f"{share:.0%} of the deletes", lambda: self.objects.count <= wanted, _DEADLINE)

    def _add(self, images: int) -> None:
        self._live = self._add_in("active", _LIVE, age=0)
        # Known to every agent before, an image is wanted by all of them when it falls due.
        lead = 3 + images / 1000
        self._due = self._add_in("pending_delete", images, age=SCRUB_TIME - lead)

    def _add_in(self, status: str, count: int, *, age: float) -> Mapping[str, str]:
        """Add images; returns their objects by their ids."""
        keys = [str(uuid.uuid4()) for _ in range(count)]
        for key in keys:
            self.objects.put(key, b"data")
        locations = [[Location(_STORE, self.objects.url(key), status)] for key in keys]
        ids = self._images.add_many(locations, status=status, age=age)
        return dict(zip(ids, keys, strict=True))

    def _keep(self, act: str, count: int) -> None:
        """Restore or hold images, a few before they are due, the rest while they are scrubbed."""
        kept, chance = self._kept[act], random.Random(act)
        while len(kept) < count:
            self.wait_deleted(0.6 * max(0.0, len(kept) / count - 0.1))
            front = self._operator.read(
                "SELECT id FROM images WHERE status = 'pending_delete' AND deleted_at IS NOT NULL"
                f" ORDER BY id LIMIT {_FRONT}"
            )
            if not front:
                return
            (image_id,) = chance.choice(front)
            try:
                getattr(self._holds, act)(image_id)
            except RefusedError:
                self._refused += 1
            else:
                kept.add(image_id)

    def _wait_settled(self) -> None:
        left = _LIVE + sum(len(kept) for kept in self._kept.values())
        wait_for("all deletes", lambda: self.objects.count <= left, _DEADLINE)
        for node, rows in zip(self.cluster.nodes, self._rows, strict=True):
            wait_for(f"settled rows on {node.name}", partial(_is_settled, rows), 60)

    def _judge_requests(self, excused: Collection[str]) -> int:
        """Judge what the agents asked of the store; returns how many images are doubled."""
        asked: dict[str, list[Request]] = defaultdict(list)
        for request in sorted(self.objects.requests, key=lambda request: request.at):
            asked[request.key].append(request)
        kept = set().union(*self._kept.values())
        for image_id, key in (*self._live.items(), *self._due.items()):
            if image_id in kept or image_id in self._live:
                assert key in self.objects, f"{image_id} lives, its data is gone: {asked[key]}"
                assert not any(request.deleted for request in asked[key])
        doubled = 0
        for image_id, key in self._due.items():
            if image_id in kept:
                continue
            first = next(request for request in asked[key] if request.deleted)
            again = asked[key][asked[key].index(first) + 1 :]
            doubled += bool(again)
            for request in again:
                assert {first.who, request.who} & set(excused), f"{image_id}: {asked[key]}"
        return doubled

    def _judge_rows(self) -> None:
        """Judge the registry, on every node."""
        wanted = dict.fromkeys(self._due, ("deleted", "deleted", True))
        wanted |= dict.fromkeys(self._kept["hold"], ("pending_delete", "pending_delete", False))
        wanted |= dict.fromkeys((*self._live, *self._kept["restore"]), ("active", "active", False))
        for node, rows in zip(self.cluster.nodes, self._rows, strict=True):
            found = {
                image_id: (status, of_location, timed)
                for image_id, status, of_location, timed in rows.read(
                    "SELECT i.id, i.status, l.status, i.deleted_at IS NOT NULL"
                    " FROM images i JOIN image_locations l ON l.image_id = i.id"
                )
            }
            wrong = {i: found.get(i) for i in wanted if found.get(i) != wanted[i]}
            assert not wrong, f"{node.name}"

    def _judge_logs(self) -> None:
        for agent in self.agents:
            lines = agent.log.splitlines()
            assert [line for line in lines if any(text in line for text in DEFECTS)] == []


def _is_settled(rows: Rows) -> bool:
    return not rows.outstanding()
