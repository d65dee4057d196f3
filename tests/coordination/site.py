# SPDX-License-Identifier: Apache-2.0
"""Agents that share a registry, a bus, a coordinator, and an S3 server that counts."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from evscrub.demo.glance_config import GlanceConfig, write_config
from tests.functional import commands
from tests.functional.agents import AgentProcess, known_as, wait_for
from tests.functional.conftest import IMAGE_TABLES
from tests.functional.glance_tables import TEMPLATES
from tests.functional.store_servers import (
    BUCKET,
    Images,
    Location,
    Request,
    StoreServer,
    s3_options,
    s3_url,
)
from tests.servers import free_port
from tests.sharing import shared

_STORE = "objects"
_ONE_CLIENT = "tests.coordination.one_client"
#: libfaketime is of no use here: below it, Python's `time.sleep` fails or threads hang.
_WITH_CLOCK_OFF = (
    "import sys; from tests.chaos import agent; agent.set_clock_off(float(sys.argv.pop(1)));"
    f" from evscrub import cli; import {_ONE_CLIENT}; sys.exit(cli.main())"
)


@dataclass(frozen=True)
class Limits:
    """What the agents are asked to keep to, together.

    :param rate: deletes per second.
    :param burst: deletes at once.
    :param options: of the group [coordination]; empty for agents that know nothing of each other.
    """

    rate: float
    burst: float
    options: Mapping[str, object]


class GroupAgent(AgentProcess):
    """An agent that tells the store its name.

    :param skew: how many seconds its wall clock is ahead.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        glance: GlanceConfig,
        options: Mapping[str, Any],
        *,
        skew: float = 0.0,
    ) -> None:
        super().__init__(directory, glance, options)
        self.name = name
        self.skew = skew
        self._said_before = 0

    def launch(self) -> None:
        """Start it and wait for nothing."""
        self.write_config()
        self._said_before = len(self.log)
        arguments = ["agent", "--config-file", str(self.config_path)]
        with known_as(self.name):
            if not self.skew:
                self.process = commands.Command(
                    arguments, self.log_path, self.log_path, module=_ONE_CLIENT
                )
                return
            with self.log_path.open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _WITH_CLOCK_OFF, str(self.skew), *arguments],
                    stdout=log,
                    stderr=log,
                )

    def wait_ready(self, *, bus: bool = True) -> None:
        """Wait until it has swept once and, with a bus, listens.

        :raises RuntimeError: it ended; with its log.
        """
        wanted = ["Sweep (full)", *(["Listening on the bus"] if bus else [])]
        wait_for(
            f"start of {self.name}, log: {self.log_path}",
            lambda: self._has(self._said_before, wanted),
        )

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.poll() is None


class Site:
    """A Glance's registry and store for agents to run on: a context manager.

    :param directory: an empty folder.
    :param limits: what the agents are asked to keep to.
    :param bus: oslo.messaging URL; empty for a bus that no agent shares with another.
    """

    def __init__(self, directory: Path, limits: Limits, bus: str = "") -> None:
        self.limits = limits
        self.agents: list[GroupAgent] = []
        self.has_bus = bool(bus)
        self._directory = directory
        self._store = StoreServer("memory")
        self._before = 0
        self._rounds = 0
        url = shared(TEMPLATES["postgresql"]).copy("coordination", directory)
        self._images = Images(url)
        self._glance = GlanceConfig(
            directory=directory / "glance",
            port=0,
            database_url=url,
            transport_url=bus or "kombu+memory://",
            stores={_STORE: "s3"},
            store_options={_STORE: s3_options(self._store)},
        )

    def __enter__(self) -> Self:
        write_config(self._glance)
        self._store.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end_agents()
        self._store.close()
        self._images.engine.dispose()

    def add_images(self, count: int) -> None:
        """Add images that are due, with their objects."""
        names = [str(uuid.uuid4()) for _ in range(count)]
        self._store.put([f"/{BUCKET}/{name}" for name in names])
        self._images.add_many([[Location(_STORE, s3_url(self._store, name))] for name in names])

    def remove_images(self) -> None:
        """Remove all images, for agents that start afterwards."""
        with self._images.engine.begin() as connection:
            for table in IMAGE_TABLES:
                connection.execute(sa.text(f"DELETE FROM {table}"))
        self._before = len(self._store.requests())

    def pending(self) -> int:
        """Return how many images await scrubbing."""
        query = "SELECT count(*) FROM image_locations WHERE status = 'pending_delete'"
        return int(str(self._images.scalar(query)))

    def new_agent(self, *, skew: float = 0.0) -> GroupAgent:
        """Return a further agent, which is not started.

        :param skew: how many seconds its wall clock is ahead.
        """
        name = f"agent{len(self.agents)}"
        directory = self._directory / f"agents{self._rounds}" / name
        directory.mkdir(parents=True)
        options: dict[str, dict[str, object]] = {
            "DEFAULT": {"scrub_time": 0, "debug": False},
            "scrubber": {"rate": self.limits.rate, "burst": self.limits.burst, "batch_size": 20},
            "status": {"listen": f"127.0.0.1:{free_port()}"},
        }
        if self.limits.options:
            options["coordination"] = dict(self.limits.options)
        agent = GroupAgent(name, directory, self._glance, options, skew=skew)
        self.agents.append(agent)
        return agent

    def end_agents(self) -> None:
        """End all agents and forget them; their folders stay."""
        for agent in self.agents:
            if agent.runs:
                agent.signal(signal.SIGCONT)
                agent.kill()
        self.agents.clear()
        self._rounds += 1

    def requests(self) -> list[Request]:
        """Return the requests since :meth:`remove_images` was last called, in order."""
        return sorted(self._store.requests(self._before))

    def deletes(self) -> list[tuple[float, str]]:
        """Return when deletes came in, on the machine's monotonic clock, and from whom, in order.

        Only those since :meth:`remove_images` was last called.
        """
        return [(each.at, each.who) for each in self.requests() if each.method == "DELETE"]
