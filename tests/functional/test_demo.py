# SPDX-License-Identifier: Apache-2.0
"""``evscrub demo`` with arguments; :mod:`tests.functional.test_readme` runs it without any."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from evscrub.commands.demo import add_arguments, scrub_times
from tests.forking import DemoPython
from tests.functional.agents import wait_for
from tests.servers import MariaDB, RabbitMQ
from tests.sharing import shared

_DEADLINE_SECONDS = 600.0


class Demo:
    """A running demo, with `home` as its folder for temporary files.

    :param command: the command that runs it as a user does; by default it is forked from a process
        that has imported it, which is faster.
    """

    def __init__(self, home: Path, arguments: Sequence[str], command: Sequence[str] = ()) -> None:
        if not command:
            command = [str(shared(DemoPython).python)]
        self.home = home
        self.log_path = home.with_suffix(".log")
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "-m", "evscrub", "demo", *arguments],
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


def run(home: Path, *arguments: str, command: Sequence[str] = ()) -> Demo:
    demo = Demo(home, arguments, command)
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


def test_demo_on_servers(home: Path, rabbitmq: RabbitMQ, mariadb: MariaDB) -> None:
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


# The ids have nothing of what is waited for: the demo says the folder's name, which has the id.
@pytest.mark.parametrize(
    "said", ["Starting a Glance", "deletes", "Checking"], ids=["first", "middle", "last"]
)
def test_interrupted_demo_cleans_up(home: Path, said: str) -> None:
    demo = Demo(home, ["--images", "20", "--scrub-time", "2"])
    try:
        demo.wait_until_it_says(said)
        demo.process.send_signal(signal.SIGINT)
        assert demo.wait() in {130, 0}  # 0 where all was said by then
    finally:
        demo.end()
    assert demo.left() == []
    assert "Traceback" not in demo.said


def test_demo_keeps_running_with_keep(home: Path) -> None:
    demo = Demo(home, ["--images", "20", "--scrub-time", "1", "--keep"])
    try:
        demo.wait_until_it_says("Ctrl-C")
        assert demo.process.poll() is None
        demo.process.send_signal(signal.SIGTERM)
        assert demo.wait() == 0
    finally:
        demo.end()
    assert_all_well(demo)


def test_printed_commands_work_when_pasted(home: Path) -> None:
    """They work if evscrub is not on the path, and some time after they were printed.

    The demo runs in the background of a shell, which makes it ignore SIGINT.
    """
    arguments = ["--images", "20", "--scrub-time", "1", "--keep"]
    demo = Demo(home, arguments, ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable])
    try:
        demo.wait_until_it_says("Ctrl-C")
        demo.wait_until_it_says("glance-api.log")
        (restore,) = [line for line in demo.said.splitlines() if " restore --config-file " in line]
        (folder,) = home.iterdir()
        done = subprocess.run(
            ["sh", "-c", restore],
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "FOLDER": str(folder),
                "ID": "nothing",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        assert "nothing: not restored: it is not in the registry" in done.stderr
        assert demo.process.poll() is None
        demo.process.send_signal(signal.SIGTERM)
        assert demo.wait() == 0
    finally:
        demo.end()
    assert_all_well(demo)


def test_images_are_kept_longer_after_the_demo() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert scrub_times(parser.parse_args([])) == (5, None)
    assert scrub_times(parser.parse_args(["--keep"])) == (5, 60)
    assert scrub_times(parser.parse_args(["--keep", "--scrub-time", "2"])) == (2, 2)


def test_demo_ends_when_the_reader_of_its_output_leaves(home: Path) -> None:
    command = f"{sys.executable} -m evscrub demo --images 10 --scrub-time 1"
    script = f'exec 3>&1; {{ {command}; echo "exit $?" >&3; }} | head -n 1'
    done = subprocess.run(
        ["bash", "-c", script],
        env=os.environ | {"TMPDIR": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    first, code = done.stdout.splitlines()
    assert first.startswith("Starting a Glance")
    assert code == "exit 130"
    assert "Traceback" not in done.stderr
    assert list(home.iterdir()) == []


def test_non_empty_database_is_refused(home: Path, mariadb: MariaDB) -> None:
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
