# SPDX-License-Identifier: Apache-2.0
"""A real Glance in a process of its own.

``python -m tests.glance_process DIRECTORY PORT`` runs one in the foreground.
"""

from __future__ import annotations

import argparse
import atexit
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx

from evscrub.demo._glance_wsgi import make_server
from evscrub.demo.glance_config import (
    GlanceConfig,
    environment,
    log_tail,
    migrate,
    write_config,
)

if TYPE_CHECKING:
    from types import FrameType

_REPOSITORY = Path(__file__).parents[1]


def serve(directory: Path, port: int) -> None:
    """Run Glance's API in the foreground until SIGTERM or SIGINT; for a main thread only.

    :param directory: the folder with `glance-api.conf`.
    :param port: TCP port on 127.0.0.1.
    :raises OSError: the port is taken.
    """
    server = make_server(directory, port)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        server.serve()
    finally:
        server.stop()


class GlanceProcess:
    """A Glance in a process of its own: a context manager that starts and stops it.

    :param config: how to run Glance.
    :param has_tables: whether the database has Glance's tables already.
    :param deadline: seconds to wait until it answers.
    """

    def __init__(
        self, config: GlanceConfig, *, has_tables: bool = False, deadline: float = 180.0
    ) -> None:
        self.config = config
        self._has_tables = has_tables
        self.deadline = deadline
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where Glance's API is."""
        return self.config.url

    @property
    def pid(self) -> int | None:
        """The process id, none while it is stopped."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Configure, migrate and start Glance, and wait until it answers.

        :raises RuntimeError: it ended, or did not answer in time; with its log's tail.
        """
        write_config(self.config)
        if not self._has_tables:
            migrate(self.config)
        self._launch()

    def stop(self, *, grace: float = 10.0) -> None:
        """Stop Glance by SIGTERM, and by SIGKILL if it is still there afterwards.

        :param grace: seconds between the two signals.
        """
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.stop)
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _launch(self) -> None:
        directory, port = self.config.directory, self.config.port
        command = [self.config.python, "-m", "tests.glance_process", str(directory), str(port)]
        variables = environment(self.config)
        paths = [str(_REPOSITORY), *filter(None, [variables.get("PYTHONPATH")])]
        variables["PYTHONPATH"] = os.pathsep.join(paths)
        with (directory / "glance.out").open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=variables,
            )
        atexit.register(self.stop)
        try:
            self._wait(self._process)
        except BaseException:
            self.stop()
            raise

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + self.deadline
        with httpx.Client(base_url=self.url, timeout=5, trust_env=False) as client:
            while not _answers(client):
                if process.poll() is not None:
                    raise RuntimeError(
                        f"Glance ended with {process.returncode}{log_tail(self.config)}"
                    )
                if time.monotonic() > until:
                    raise RuntimeError(
                        f"Glance does not answer after {self.deadline} s{log_tail(self.config)}"
                    )
                time.sleep(0.05)


def _answers(client: httpx.Client) -> bool:
    try:
        # Listing reads the database, so the answer says that it is there too.
        answer = client.get("/v2/images?limit=1")
    except httpx.HTTPError:
        return False
    return answer.is_success


def _main() -> None:
    parser = argparse.ArgumentParser(description="Run Glance's API in the foreground.")
    parser.add_argument("directory", type=Path, help="folder with glance-api.conf")
    parser.add_argument("port", type=int, help="TCP port on 127.0.0.1")
    arguments = parser.parse_args()
    serve(arguments.directory, arguments.port)


if __name__ == "__main__":
    _main()
