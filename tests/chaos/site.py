# SPDX-License-Identifier: Apache-2.0
"""The servers and processes of a run, all of them real but the object store."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

import oslo_messaging
import sqlalchemy as sa
from oslo_config import cfg

from evscrub.demo.glance_config import GlanceConfig
from evscrub.registry.holds import Holds
from tests.chaos.plan import (
    AGENTS,
    CLAIM_TIMEOUT,
    GROUP_BURST,
    GROUP_RATE,
    MEMBERSHIP_TIMEOUT,
    SCRUB_TIME,
)
from tests.chaos.rows import Rows, connect
from tests.chaos.store import BUCKET, COPIES, ObjectStore
from tests.functional import commands
from tests.functional.agents import AgentProcess, known_as, wait_for
from tests.glance_client import GlanceClient
from tests.glance_process import GlanceProcess
from tests.servers import (
    COORDINATORS,
    DatabaseServer,
    Galera,
    MariaDB,
    PostgreSQL,
    RabbitMQ,
    free_port,
)

DATABASES: Mapping[str, Callable[[], DatabaseServer | Galera]] = {
    "galera": Galera,
    "mariadb": MariaDB,
    "postgresql": PostgreSQL,
}
#: The database's name.
DATABASE = "glance"
SCRUBBER = "glance-scrubber"

# A publisher whose broker is away says so at length.
for _name in ("oslo.messaging", "oslo_messaging"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


class Sleep(NamedTuple):
    """When an agent was stopped, and went on as the same process.

    :param logged: how long its log was before it went on, characters.
    """

    slept: float
    woke: float
    logged: int


class ChaosAgent(AgentProcess):
    """An agent that says its name to the store, and whose clock may be off.

    :param database_url: of the database server that it works on.
    :param group_url: where the group is kept that the agents are; empty for no group.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        glance: GlanceConfig,
        database_url: str,
        group_url: str = "",
    ) -> None:
        super().__init__(
            directory,
            glance,
            {
                "DEFAULT": {"scrub_time": SCRUB_TIME},
                "database": {"connection": database_url},
                "scrubber": {
                    "claim_timeout": CLAIM_TIMEOUT,
                    "concurrency": 4,
                    "batch_size": 10,
                    "retry_max": 3,
                    "parked_delay": 5,
                    "drain_timeout": 5,
                },
                "sweep": {"interval": 2, "full_interval": 15, "batch_size": 50},
            },
        )
        if group_url:
            self.options["scrubber"] |= {"rate": GROUP_RATE, "burst": GROUP_BURST}
            self.options["coordination"] = {
                "backend_url": group_url,
                "membership_timeout": MEMBERSHIP_TIMEOUT,
            }
        self.name = name
        self.skew = 0.0
        #: When it was killed, stopped or sent home: from then on others may have its claims.
        self.away: list[tuple[float, float]] = []
        self.sleeps: list[Sleep] = []
        self._away_since = time.time()
        self._said_before = 0

    def launch(self) -> None:
        """Start it and wait for nothing."""
        self.write_config()
        arguments = ["agent", "--config-file", str(self.config_path)]
        with known_as(self.name), self.log_path.open("ab") as log:
            self._said_before = log.tell()
            if self.skew:
                command = [sys.executable, "-m", "tests.chaos.agent", str(self.skew), *arguments]
                self.process = subprocess.Popen(command, stdout=log, stderr=log)
            else:
                self.process = commands.Command(arguments, self.log_path, self.log_path)

    def wait_ready(self) -> None:
        """Wait until it scrubs; from then on it minds SIGHUP and SIGTERM.

        An agent ends at once where it finds no database, and its service manager is to start it
        again; here that is us.
        """

        def ready() -> bool:
            if self.process is not None and self.process.poll() == os.EX_UNAVAILABLE:
                self.launch()
            return self.is_ready

        wait_for(f"start of {self.name}, log: {self.log_path}", ready, 90)
        self.back()

    @property
    def is_ready(self) -> bool:
        """Whether it scrubs."""
        if self.process is None or self.process.poll() is not None:
            return False
        with self.log_path.open() as log:
            log.seek(self._said_before)
            return "Sweep (full)" in log.read(200_000)

    def gone(self) -> None:
        """Note that it is away from now on."""
        self._away_since = self._away_since or time.time()

    def back(self) -> None:
        """Note that it is back."""
        if self._away_since:
            self.away.append((self._away_since, time.time()))
        self._away_since = 0.0

    def resume(self) -> None:
        """Let it go on after SIGSTOP."""
        logged = len(self.log)
        self.back()
        self.signal(signal.SIGCONT)
        self.sleeps.append(Sleep(*self.away[-1], logged))

    @property
    def absences(self) -> list[tuple[float, float]]:
        """From when to when it was away."""
        return [*self.away, *([(self._away_since, time.time())] if self._away_since else [])]

    @property
    def is_away(self) -> bool:
        """Whether it is away."""
        return bool(self._away_since)

    @property
    def resident_bytes(self) -> int:
        """How much memory it has; 0 while it does not run."""
        try:
            pages = Path(f"/proc/{self.process.pid}/statm").read_text() if self.process else "0 0"
        except OSError:
            return 0
        return int(pages.split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Site:
    """All of it: a context manager.

    :param kind: of the database, a key of `DATABASES`.
    :param directory: an empty folder.
    :param group: what keeps the group that the agents are, a key of `COORDINATORS`; empty for
        agents that know nothing of each other.
    """

    def __init__(self, kind: str, directory: Path, group: str = "") -> None:
        self.directory = directory
        self.database = DATABASES[kind]()
        self.rabbitmq = RabbitMQ()
        self.coordinator = COORDINATORS[group]() if group else None
        self.objects = ObjectStore(("agent", SCRUBBER), delay=0.2)
        self.agents: list[ChaosAgent] = []
        #: Held by whoever uses the file store, and while it is away.
        self.mount = threading.Lock()
        #: Held while agents start: one that starts while the store is away makes its folder anew.
        self.launching = threading.Lock()
        self._scrubber: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        for server in (self.database, self.rabbitmq, self.objects):
            stack.enter_context(server)
        if self.coordinator is not None:
            stack.enter_context(self.coordinator)
        group_url = "" if self.coordinator is None else self.coordinator.url
        self.url = self.database.create_database(DATABASE)
        self.glance = GlanceProcess(self._glance_config())
        stack.enter_context(self.glance)
        self.files = self.glance.config.data_directory("files")
        self.client = stack.enter_context(GlanceClient(self.glance.url, timeout=20))
        self.rows = Rows(self.url)
        self.holds = Holds(connect(self.url))
        self.notifier = self._make_notifier(stack)
        for number in range(AGENTS):
            directory = self.directory / f"agent{number}"
            directory.mkdir()
            node = self.database.nodes[number % len(self.database.nodes)]
            url = node.database_url(DATABASE)
            agent = ChaosAgent(directory.name, directory, self.glance.config, url, group_url)
            self.agents.append(agent)
            stack.push(agent)
            agent.launch()
        stack.callback(self.stop_scrubber)
        self.start_scrubber()
        for agent in self.agents:
            agent.wait_ready()

    def _glance_config(self) -> GlanceConfig:
        return GlanceConfig(
            directory=self.directory / "glance",
            port=free_port(),
            database_url=self.url,
            transport_url=self.rabbitmq.url,
            stores={"objects": "s3", "copies": "s3", "files": "file"},
            store_options={
                "objects": self.objects.options(BUCKET),
                "copies": self.objects.options(COPIES),
            },
            extra={
                "DEFAULT": {"scrub_time": str(SCRUB_TIME), "wakeup_time": "3"},
                # A DELETE would hang for as long as the broker is away.
                "oslo_messaging_notifications": {"retry": "0"},
            },
        )

    def _make_notifier(self, stack: ExitStack) -> oslo_messaging.Notifier:
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[str(self.glance.config.directory / "glance-api.conf")])
        oslo_messaging.set_transport_defaults("glance")
        transport = oslo_messaging.get_notification_transport(conf)
        stack.callback(transport.cleanup)
        return oslo_messaging.Notifier(transport, "image.localhost", retry=0)

    # -- glance-scrubber

    def start_scrubber(self) -> None:
        """Start Glance's own scrubber as a daemon, unless it runs."""
        if self._scrubber is not None and self._scrubber.poll() is None:
            return
        config = self.glance.config.directory / "glance-api.conf"
        log = self.directory / "scrubber.log"
        command = [sys.executable, "-m", "tests.functional.scrubber", "--config-file", str(config)]
        command += ["--daemon", "--log-file", str(log)]
        with known_as(SCRUBBER):
            self._scrubber = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )

    def stop_scrubber(self) -> None:
        """Stop it."""
        process, self._scrubber = self._scrubber, None
        if process is not None:
            process.kill()
            process.wait()

    # -- what is asked of the database around everybody

    def cut_connections(self) -> None:
        """Cut everybody's connections with the database, as a failing network does."""
        for node in self.database.nodes:
            _cut_connections(node)

    def reload_agents(self) -> None:
        """Tell the agents, as an operator does who has mended something."""
        for agent in self.agents:
            if agent.is_ready:
                agent.write_config()
                agent.signal(signal.SIGHUP)


def _cut_connections(server: DatabaseServer) -> None:
    engine = sa.create_engine(server.url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(
                    sa.text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        f" WHERE datname = '{DATABASE}' AND pid <> pg_backend_pid()"
                    )
                )
                return
            ids = connection.execute(
                sa.text(f"SELECT id FROM information_schema.processlist WHERE db = '{DATABASE}'")
            ).scalars()
            for number in ids.all():
                try:
                    connection.execute(sa.text(f"KILL {number}"))
                except sa.exc.DBAPIError:
                    continue  # it has left by itself
    finally:
        engine.dispose()
