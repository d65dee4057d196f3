# SPDX-License-Identifier: Apache-2.0
"""``evscrub demo`` from its start to its end, as a user sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from tests.functional.agents import wait_for
from tests.servers import MariaDB, RabbitMQ

_DEADLINE_SECONDS = 120.0


class Demo:
    """A demo that runs, with `home` as its folder for temporary files.

    :param through: a command that runs it.
    """

    def __init__(self, home: Path, arguments: Sequence[str], through: Sequence[str] = ()) -> None:
        self.home = home
        self.log_path = home.with_suffix(".log")
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*through, sys.executable, "-m", "evscrub", "demo", *arguments],
                stdout=log,
                stderr=log,
                env=os.environ | {"TMPDIR": str(home), "COLUMNS": "100"},
            )

    @property
    def said(self) -> str:
        return self.log_path.read_text()

    def wait(self) -> int:
        return self.process.wait(_DEADLINE_SECONDS)

    def wait_until_it_says(self, text: str) -> None:
        wait_for(text, lambda: text in self.said, _DEADLINE_SECONDS)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def left(self) -> list[str]:
        return sorted(path.name for path in self.home.iterdir())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


def run(home: Path, *arguments: str) -> Demo:
    demo = Demo(home, arguments)
    try:
        demo.wait()
    finally:
        demo.end()
    return demo


def assert_all_well(demo: Demo) -> None:
    assert demo.process.returncode == 0, demo.said
    assert demo.said.count("\n ok ") == 6
    assert "Every deleted image's data is gone" in demo.said
    assert "Traceback" not in demo.said
    assert demo.left() == []


def test_alone(home: Path) -> None:
    demo = run(home, "--images", "20", "--scrub-time", "2")
    assert_all_well(demo)
    assert "20 uploaded, 16 deleted" in demo.said


def test_on_servers(home: Path, rabbitmq: RabbitMQ, mariadb: MariaDB) -> None:
    database = mariadb.new_database("demo")
    queues = rabbitmq.list_queues()
    places = ["--transport-url", rabbitmq.url, "--database", database]
    demo = run(home, "--images", "20", "--scrub-time", "2", *places)
    assert_all_well(demo)
    assert rabbitmq.list_queues() == queues
    engine = sa.create_engine(database, poolclass=NullPool)
    assert sa.inspect(engine).get_table_names() == []
    for secret in ("secret", "guest:guest"):
        assert secret not in demo.said


@pytest.mark.parametrize("said", ["Starting a Glance", "deletes", "Checking"])
def test_interrupted(home: Path, said: str) -> None:
    demo = Demo(home, ["--images", "20", "--scrub-time", "2"])
    try:
        demo.wait_until_it_says(said)
        demo.process.send_signal(signal.SIGINT)
        assert demo.wait() in {130, 0}  # 0 where all was said by then
    finally:
        demo.end()
    assert demo.left() == []
    assert "Traceback" not in demo.said


@pytest.mark.parametrize(
    "through",
    [(), ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")],
    ids=["", "in the background of a shell"],
)
def test_kept_for_playing(home: Path, through: Sequence[str]) -> None:
    demo = Demo(home, ["--images", "20", "--scrub-time", "1", "--keep"], through)
    try:
        demo.wait_until_it_says("Ctrl-C")
        assert demo.process.poll() is None
        demo.process.send_signal(signal.SIGTERM)
        assert demo.wait() == 0
    finally:
        demo.end()
    assert_all_well(demo)


def test_a_database_that_is_not_empty(home: Path, mariadb: MariaDB) -> None:
    database = mariadb.new_database("mine")
    engine = sa.create_engine(database, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE mine (id INTEGER)")
    demo = run(home, "--database", database)
    assert demo.process.returncode == 2
    assert "empty" in demo.said
    assert "Traceback" not in demo.said
    assert sa.inspect(engine).get_table_names() == ["mine"]
    assert demo.left() == []
