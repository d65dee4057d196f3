# SPDX-License-Identifier: Apache-2.0
"""Runs the real agent in a process of its own, and asks the registry what became of images."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from oslo_log import log
from sqlalchemy.pool import NullPool, QueuePool

from evscrub.demo.glance_config import GlanceConfig
from tests.functional import commands
from tests.servers.base import wait_until

#: Bounds what hangs; a busy machine takes its time.
DEADLINE_SECONDS = 120.0
#: The environment is the whole process's.
_naming = threading.Lock()


def wait_for(what: str, true: Callable[[], object], deadline: float = DEADLINE_SECONDS) -> None:
    """Wait until a condition holds.

    :param what: what is waited for, for the error.
    :raises TimeoutError: it did not hold within `deadline` seconds.
    """
    wait_until(true, deadline, what)


@contextmanager
def known_as(name: str) -> Iterator[None]:
    """Let processes that are started meanwhile tell S3 servers their name.

    botocore adds it to the user agent.

    :param name: letters, digits and dashes.
    """
    with _naming:
        os.environ["AWS_SDK_UA_APP_ID"] = name
        try:
            yield
        finally:
            del os.environ["AWS_SDK_UA_APP_ID"]


def name_in(user_agent: str) -> str:
    """Return the name that :func:`known_as` put into a user agent, empty if there is none."""
    found = re.search(r"\bapp/(\S+)", user_agent)
    return found[1] if found else ""


#: Keeps libraries from logging at DEBUG, which takes them longer than the requests and polls that
#: they tell of.
LOG_LEVELS = ",".join(
    [
        *log.get_default_log_levels(),
        *("botocore=INFO", "urllib3=INFO", "glance_store=INFO", "stevedore=CRITICAL"),
    ]
)

#: How old an agent's lease may get.
CLAIM_TIMEOUT_SECONDS = 10


class AgentProcess:
    """An agent beside a Glance: a context manager.

    :param directory: an empty folder for its configuration and log.
    :param glance: the Glance that it runs beside.
    :param options: by group and name; they win over those that make tests quick.
    """

    def __init__(
        self,
        directory: Path,
        glance: GlanceConfig,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self.config_path = directory / "evscrub.conf"
        self.log_path = directory / "evscrub.log"
        self.options: dict[str, dict[str, object]] = {
            "DEFAULT": {
                "glance_config_files": glance.directory / "glance-api.conf",
                "scrub_time": 2,
                "debug": True,
                "default_log_levels": LOG_LEVELS,
            },
            "scrubber": {
                "claim_timeout": CLAIM_TIMEOUT_SECONDS,
                "drain_timeout": 10,
                "retry_initial": 0.2,
            },
            "sweep": {"interval": 2},
            "status": {"listen": "none"},
        }
        for group, values in (options or {}).items():
            self.options.setdefault(group, {}).update(values)
        self.process: commands.Command | subprocess.Popen[bytes] | None = None
        self._log = ""
        self._log_read_bytes = 0
        self._log_lock = threading.Lock()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def log(self) -> str:
        """What it has logged, in whole lines."""
        with self._log_lock:
            if self.log_path.exists():
                with self.log_path.open("rb") as log:
                    log.seek(self._log_read_bytes)
                    new = log.read()
                lines = new[: new.rfind(b"\n") + 1]
                self._log_read_bytes += len(lines)
                self._log += lines.decode()
            return self._log

    def write_config(self) -> None:
        """Write the options to the configuration file, for a start or a reload."""
        lines = []
        for group, values in self.options.items():
            lines.append(f"[{group}]")
            lines += [f"{name} = {value}" for name, value in values.items()]
        self.config_path.write_text("\n".join(lines) + "\n")

    def start(self, *, joined: bool = True) -> None:
        """Start, and wait until it has swept once and, if `joined`, listens on the bus."""
        self.write_config()
        seen = len(self.log)
        arguments = ("agent", "--config-file", self.config_path)
        self.process = commands.Command(arguments, self.log_path, self.log_path)
        wanted = ["Sweep (full)", *(["Listening on the bus"] if joined else [])]
        wait_for(f"start of the agent, log: {self.log_path}", lambda: self._has(seen, wanted))

    def wait_for_log(self, text: str, *, after: int = 0) -> None:
        """Wait until the log has `text`, looking at what comes after so many characters."""
        wait_for(f"{text!r} in {self.log_path}", lambda: text in self.log[after:])

    def reload(self) -> None:
        """Write the options anew and let the agent apply them."""
        seen = len(self.log)
        self.write_config()
        self.signal(signal.SIGHUP)
        self.wait_for_log("Configuration reloaded", after=seen)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, deadline: float = 60.0) -> int:
        """Send SIGTERM and wait; returns the exit code."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        return self.process.wait(deadline)

    def kill(self) -> None:
        """Send SIGKILL and wait."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def _has(self, seen: int, wanted: list[str]) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the agent exited with {self.process.returncode}: {self.log}")
        return all(text in self.log[seen:] for text in wanted)


class Registry:
    """Reads and writes Glance's tables directly."""

    def __init__(self, url: str) -> None:
        pool = NullPool if url.startswith("sqlite") else QueuePool
        self.engine = sa.create_engine(url, poolclass=pool, pool_pre_ping=True)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    def status(self, image_id: str) -> tuple[str, set[str]]:
        """The image's status and those of its locations."""
        with self.engine.connect() as connection:
            image = connection.execute(
                sa.text("SELECT status FROM images WHERE id = :id"), {"id": image_id}
            ).scalar_one()
            rows = connection.execute(
                sa.text("SELECT status FROM image_locations WHERE image_id = :id"),
                {"id": image_id},
            ).scalars()
            return str(image), set(rows)

    def is_scrubbed(self, image_id: str) -> bool:
        """Whether the image and all its locations are deleted."""
        return self.status(image_id) == ("deleted", {"deleted"})

    def execute(self, statement: str, **values: object) -> None:
        """Run one statement in a transaction."""
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def scalar(self, query: str, **values: object) -> object:
        """Read one value."""
        with self.engine.connect() as connection:
            return connection.execute(sa.text(query), values).scalar_one()
