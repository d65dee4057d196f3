# SPDX-License-Identifier: Apache-2.0
"""A real Galera cluster of three MariaDB nodes."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from tests.servers.base import free_port, is_open, wait_until
from tests.servers.databases import MariaDB

_PROVIDERS = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so")
_STATUS = "SHOW GLOBAL STATUS LIKE 'wsrep%'"


class GaleraNode(MariaDB):
    """A node of a :class:`Galera`, which makes it; as a MariaDB it stops, starts and is killed.

    A node that starts gets what it missed from another one, or all data by rsync if it missed too
    much. One that was killed finds out first how far it got, as Debian's service does.

    :param number: counted from 0.
    :param deadline: seconds to wait until it is ready.
    """

    def __init__(self, number: int, *, deadline: float = 180.0) -> None:
        super().__init__(deadline=deadline)
        self.name = f"node{number}"
        self.group_port = free_port()
        self._ist_port, self._sst_port = free_port(), free_port()
        self._group: Sequence[GaleraNode] = [self]
        self._variables: dict[str, str] = {}

    def join(self, group: Sequence[GaleraNode]) -> None:
        """Name the nodes of the cluster that the node is to be one of, itself too."""
        self._group = group

    def set_variable(self, name: str, value: str) -> None:
        """Set a variable of the server, for new connections and for starts to come.

        :param name: the variable's name.
        :param value: its value as SQL.
        """
        self._variables[name] = value
        if self.pid is not None:
            self._execute(f"SET GLOBAL {name} = {value}")

    def freeze(self) -> None:
        """Stop the node where it is, as a paused virtual machine is stopped."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen node go on."""
        self._signal(signal.SIGCONT)

    def cluster_size(self) -> int:
        """Return how many nodes the node sees, itself too; 0 while it takes no work."""
        try:
            status = {row[0]: row[1] for row in self._execute(_STATUS)}
        except SQLAlchemyError:
            return 0
        synced = status["wsrep_ready"] == "ON" and status["wsrep_local_state_comment"] == "Synced"
        return int(status["wsrep_cluster_size"]) if synced else 0

    def kill(self) -> None:
        """Stop the node, and the copying that it may have under way, as a crash would."""
        if self.pid is not None and self._owner == os.getpid():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # it leads a session of its own
        super().kill()

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is None:
            raise RuntimeError(f"{self.name} does not run")
        os.kill(self.pid, number)

    def _account(self) -> str | None:
        # For root, rsync's daemon would write as nobody, who may not.
        return "mysql" if os.geteuid() == 0 else None

    def _prepare(self) -> None:
        if account := self._account():
            shutil.chown(self.directory, account)
        super()._prepare()
        # Each node makes the user for itself: it can send nothing to others when it starts.
        init = self.directory / "init.sql"
        init.write_text(f"SET SESSION wsrep_on = OFF;\n{init.read_text()}")

    def _command(self) -> Sequence[str]:
        provider = {
            "gmcast.listen_addr": f"tcp://127.0.0.1:{self.group_port}",
            "ist.recv_addr": f"127.0.0.1:{self._ist_port}",
            "base_host": "127.0.0.1",
            "base_port": f"{self.group_port}",
            "gcache.size": "32M",
        }
        wsrep = {
            "on": "ON",
            "provider": _provider(),
            "provider-options": ";".join(f"{name}={value}" for name, value in provider.items()),
            "cluster-name": "evscrub",
            "cluster-address": "gcomm://"
            + ",".join(f"127.0.0.1:{node.group_port}" for node in self._group),
            "node-name": self.name,
            "node-address": "127.0.0.1",
            "node-incoming-address": f"127.0.0.1:{self.port}",
            "sst-method": "rsync",
            "sst-receive-address": f"127.0.0.1:{self._sst_port}",
        }
        command = [*super()._command(), "--binlog-format=ROW", "--innodb-autoinc-lock-mode=2"]
        command += ["--innodb-log-file-size=8M"]  # it is copied to nodes that join
        command += [f"--wsrep-{name}={value}" for name, value in wsrep.items()]
        command += [f"--{name.replace('_', '-')}={v}" for name, v in self._variables.items()]
        if self._was_killed():
            command.append(f"--wsrep-start-position={self._recover(command)}")
        if not any(node.pid for node in self._group):
            command.append("--wsrep-new-cluster")
        return command

    def _was_killed(self) -> bool:
        state = self.directory / "data" / "grastate.dat"
        return state.exists() and "seqno:   -1\n" in state.read_text()

    def _recover(self, command: Sequence[str]) -> str:
        """Return how far the node got."""
        self._run([*command, "--wsrep-recover"])
        said = re.findall(r"WSREP: Recovered position:\s*(\S+)", self.log_path.read_text())
        if not said:
            raise RuntimeError(f"{self.name} does not know how far it got\n{self._tail()}")
        return str(said[-1])

    def _ready(self) -> bool:
        return is_open(self.port) and self.cluster_size() > 0


class Galera:
    """A cluster of three nodes on 127.0.0.1: a context manager.

    :param variables: variables of every node, as SQL by their names.
    :param deadline: seconds to wait until each node is ready.
    """

    def __init__(
        self, *, variables: Mapping[str, str] | None = None, deadline: float = 180.0
    ) -> None:
        self.nodes = [GaleraNode(number, deadline=deadline) for number in range(3)]
        for node in self.nodes:
            node.join(self.nodes)
        for name, value in (variables or {}).items():
            self.set_variable(name, value)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Make the cluster and wait until every node sees all of them.

        :raises RuntimeError: one did not start.
        """
        try:
            self.nodes[0].start()
            with ThreadPoolExecutor() as pool:
                list(pool.map(GaleraNode.start, self.nodes[1:]))
            self.wait_whole()
        except BaseException:
            self.close()
            raise

    def wait_whole(self) -> None:
        """Wait until every node sees all of them.

        :raises TimeoutError: they did not find together in time.
        """
        wait_until(
            lambda: all(node.cluster_size() == len(self.nodes) for node in self.nodes),
            self.nodes[0].deadline,
            "the cluster is whole",
        )

    def create_database(self, name: str) -> str:
        """Create an empty database.

        :param name: lower case letters, digits and underscores.
        :returns: its SQLAlchemy URL on the first node.
        """
        return self.nodes[0].create_database(name)

    def close(self) -> None:
        """Stop the nodes and remove their folders."""
        for node in self.nodes:
            node.close()

    def set_variable(self, name: str, value: str) -> None:
        """Set a variable on every node, see :meth:`GaleraNode.set_variable`."""
        for node in self.nodes:
            node.set_variable(name, value)


def _provider() -> str:
    for path in _PROVIDERS:
        if Path(path).exists():
            return path
    raise FileNotFoundError(f"{_PROVIDERS[0]} is not installed: install galera-4")
