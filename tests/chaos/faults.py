# SPDX-License-Identifier: Apache-2.0
"""Makes the faults of a plan, one after another on each of its tracks."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tests.chaos.plan import Fault
from tests.chaos.site import ChaosAgent, Site
from tests.chaos.store import Mood
from tests.servers import CoordinatorServer

_QUEUE = "evscrub.info"
_MOODS = {
    "store_failing": Mood.FAILING,
    "store_throttling": Mood.THROTTLING,
    "store_slow": Mood.SLOW,
    "store_cutting": Mood.CUTTING,
}


class Faults:
    """What goes wrong.

    :param violated: told of an agent that does not end when it is asked to.
    """

    def __init__(self, site: Site, violated: Callable[[str], None]) -> None:
        self.history: list[tuple[float, str]] = []
        #: When the database was away, or its connections were cut.
        self.outages: list[tuple[float, float]] = []
        self.made: list[str] = []
        self._site = site
        self._violated = violated
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def begin(self, began: float, tracks: Sequence[Sequence[Fault]]) -> None:
        """Make the faults of all tracks, in threads.

        :param began: the run's start, seconds since the epoch.
        """
        for track in tracks:
            thread = threading.Thread(target=self._run, args=(began, track), daemon=True)
            thread.start()
            self._threads.append(thread)

    def end(self) -> None:
        """Begin no more faults, and wait until those under way are over."""
        self._over.set()
        for thread in self._threads:
            thread.join(120)

    def note(self, text: str) -> None:
        """Write something into the history."""
        self.history.append((time.time(), text))

    def _run(self, began: float, track: Sequence[Fault]) -> None:
        for fault in track:
            if self._over.wait(max(0.0, began + fault.start - time.time())):
                return
            self.note(f"{fault}")
            self.made.append(fault.kind)
            try:
                self._make(fault)
            except Exception as error:  # noqa: BLE001 - a run whose faults fail proves nothing
                self._violated(f"the fault itself failed: {fault}: {error!r}")
            self.note(f"{fault.kind} is over")

    def _make(self, fault: Fault) -> None:
        if fault.kind in _MOODS:
            self._site.objects.slowness = fault.value
            self._site.objects.mood = _MOODS[fault.kind]
            self._over.wait(fault.seconds)
            self._site.objects.mood = Mood.WELL
            return
        make: Callable[[Fault], None] = getattr(self, f"_{fault.kind}")
        make(fault)

    # -- agents

    def _kill(self, fault: Fault) -> None:
        agent = self._site.agents[fault.agent]
        self._catch_at_work(agent)
        agent.gone()
        agent.kill()
        self._over.wait(fault.seconds)
        self._launch(agent)

    def _terminate(self, fault: Fault) -> None:
        agent = self._site.agents[fault.agent]
        agent.gone()
        try:
            agent.stop(45)
        except subprocess.TimeoutExpired:
            self._violated(f"{agent.name} did not end within 45 s of SIGTERM")
            agent.kill()
        self._over.wait(fault.seconds)
        self._launch(agent)

    def _clock(self, fault: Fault) -> None:
        agent = self._site.agents[fault.agent]
        agent.skew = 0.0 if agent.skew else fault.value
        self._terminate(fault)

    def _stop(self, fault: Fault) -> None:
        agent = self._site.agents[fault.agent]
        self._catch_at_work(agent)
        agent.gone()
        agent.signal(signal.SIGSTOP)
        self._over.wait(fault.seconds)
        agent.resume()

    _stop_short = _stop_long = _stop

    def _catch_at_work(self, agent: ChaosAgent) -> None:
        """Wait a while for the agent to be in the middle of a delete."""
        until = time.time() + 4
        while not self._site.objects.deleting[agent.name] and time.time() < until:
            time.sleep(0.01)

    def _launch(self, agent: ChaosAgent) -> None:
        # A file driver that starts while its folder is away makes the folder anew.
        with self._site.launching:
            agent.launch()
            agent.wait_ready()

    # -- the rest

    def _broker_down(self, fault: Fault) -> None:
        self._site.rabbitmq.stop()
        self._over.wait(fault.seconds)
        self._site.rabbitmq.start()

    def _broker_purge(self, _: Fault) -> None:
        self._purge_queue()

    def _broker_cut(self, _: Fault) -> None:
        self._site.rabbitmq.close_all_connections()
        self._purge_queue()

    def _purge_queue(self) -> None:
        # A broker that was away comes back without it, until somebody declares it again.
        if _QUEUE in self._site.rabbitmq.list_queues():
            self._site.rabbitmq.purge_queue(_QUEUE)

    def _database_down(self, fault: Fault) -> None:
        nodes = self._site.database.nodes
        node = nodes[fault.agent % len(nodes)]
        with self._outage():
            node.stop()
            self._over.wait(fault.seconds)
            node.start()

    def _database_cut(self, _: Fault) -> None:
        for _again in range(5):
            with self._outage():
                self._site.cut_connections()
            self._over.wait(0.5)

    def _coordinator_down(self, fault: Fault) -> None:
        self._coordinator.stop()
        self._over.wait(fault.seconds)
        self._coordinator.start()

    def _coordinator_stalled(self, fault: Fault) -> None:
        self._coordinator.freeze()
        self._over.wait(fault.seconds)
        self._coordinator.thaw()

    def _coordinator_emptied(self, _: Fault) -> None:
        self._coordinator.restart_empty()

    @property
    def _coordinator(self) -> CoordinatorServer:
        assert self._site.coordinator is not None
        return self._site.coordinator

    @contextmanager
    def _outage(self) -> Iterator[None]:
        began = time.time()
        yield
        self.outages.append((began, time.time()))

    def _files_away(self, fault: Fault) -> None:
        files = self._site.files
        aside = files.with_name("away")
        with self._site.launching, self._site.mount:
            files.rename(aside)
            self._over.wait(fault.seconds)
            if files.exists():
                files.rmdir()
            aside.rename(files)
        self._site.reload_agents()

    def _files_read_only(self, fault: Fault) -> None:
        if os.geteuid():
            self.note("files_read_only needs root, left out")
            return
        files = str(self._site.files)
        with self._site.mount:
            subprocess.run(["mount", "--bind", files, files], check=True)
            try:
                subprocess.run(["mount", "-o", "remount,ro,bind", files], check=True)
                self._over.wait(fault.seconds)
            finally:
                subprocess.run(["umount", "--lazy", files], check=True)
