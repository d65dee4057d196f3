# SPDX-License-Identifier: Apache-2.0
"""How much faster several agents are than one: `python -m tests.chaos.scale --agents 4`.

All images fall due at the same moment and every agent knows them all, from its own sweep, so this
is as much contention as there can be. The store answers in 50 ms and costs no processor.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from evscrub.demo.glance_config import GlanceConfig, migrate, write_config
from tests.chaos.rows import Rows, new_id, utc_now
from tests.chaos.site import DATABASES
from tests.functional.agents import AgentProcess, wait_for
from tests.servers import DatabaseServer, free_port

#: For the agents to start in, before anything is due.
_HEAD_START = 40


@dataclass(frozen=True)
class Result:
    """What a number of agents did."""

    agents: int
    images: int
    seconds: float
    twice: int
    shares: tuple[int, ...]

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds


class SlowAgent(AgentProcess):
    """An agent on a file store that answers late."""

    def launch(self, delay: float, log: Path) -> None:
        """Start it."""
        self.write_config()
        command = [sys.executable, "-m", "tests.chaos.slow_agent", str(delay), str(log)]
        command += ["agent", "--config-file", str(self.config_path)]
        with self.log_path.open("ab") as said:
            self.process = subprocess.Popen(command, stdout=said, stderr=said)


def measure(
    server: DatabaseServer, agents: int, images: int, *, concurrency: int = 8, delay: float = 0.05
) -> Result:
    """Let so many agents scrub so many images."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evscrub-scale-")))
        url = server.new_database(f"scale_{free_port()}")
        config = GlanceConfig(
            directory / "glance", free_port(), url, "kombu+memory://", stores={"files": "file"}
        )
        write_config(config)
        migrate(config)
        rows = Rows(url)
        stack.callback(rows.engine.dispose)
        _add_pending(rows, images, config.data_directory("files"))
        log = directory / "deletes.log"
        options = {
            "DEFAULT": {"scrub_time": _HEAD_START, "debug": False},
            "scrubber": {"concurrency": concurrency, "claim_timeout": 60},
            "sweep": {"interval": 5},
        }
        for number in range(agents):
            (directory / f"agent{number}").mkdir()
            agent = SlowAgent(directory / f"agent{number}", config, options)
            stack.push(agent)
            agent.launch(delay, log)

        def done() -> bool:
            return log.exists() and log.read_bytes().count(b"\n") >= images

        wait_for("all images to be scrubbed", done, _HEAD_START + 60 + images * delay)
        lines = [line.split() for line in log.read_text().splitlines()]
    times = sorted(float(at) for at, _, _ in lines)
    counts = Counter(path for _, _, path in lines)
    return Result(
        agents,
        images,
        times[-1] - times[0] + delay,
        sum(count > 1 for count in counts.values()),
        tuple(sorted(Counter(pid for _, pid, _ in lines).values())),
    )


def _add_pending(rows: Rows, count: int, folder: Path) -> None:
    """Add images and delete them all at once."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = sa.MetaData()
    tables.reflect(rows.engine, only=("images", "image_locations"))
    then = utc_now()
    times = {"created_at": then, "updated_at": then, "deleted_at": then, "deleted": True}
    ids = [new_id() for _ in range(count)]
    image = {"status": "pending_delete", "visibility": "shared", "size": 1, "owner": "o"}
    image |= {"min_disk": 0, "min_ram": 0, "protected": False, "os_hidden": False}
    location = {"status": "pending_delete", "meta_data": json.dumps({"store": "files"})}
    for image_id in ids:
        (folder / image_id).write_bytes(b"x")
    with rows.engine.begin() as connection:
        connection.execute(
            tables.tables["images"].insert(), [image | times | {"id": i} for i in ids]
        )
        connection.execute(
            tables.tables["image_locations"].insert(),
            [location | times | {"image_id": i, "value": f"file://{folder / i}"} for i in ids],
        )


def main() -> int:
    """Measure one agent and several, and compare."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.scale", description=__doc__)
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--images", type=int, default=1500, help="for each agent")
    parser.add_argument("--concurrency", type=int, default=8, help="of each agent")
    parser.add_argument("--database", choices=sorted(DATABASES), default="mariadb")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers are stopped
    with DATABASES[arguments.database]() as server:
        results = [
            measure(server, n, arguments.images * n, concurrency=arguments.concurrency)
            for n in (1, arguments.agents)
        ]
    for result in results:
        print(
            f"{result.agents} agents: {result.images} images in {result.seconds:.1f} s,"
            f" {result.rate:.0f}/s, by agent {result.shares}, worked on twice: {result.twice}"
        )
    print(f"ratio {results[1].rate / results[0].rate:.2f}")
    return int(any(result.twice for result in results))


if __name__ == "__main__":
    sys.exit(main())
