# SPDX-License-Identifier: Apache-2.0
"""The image: what it says of itself, and an agent in it that runs as nobody and changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from evscrub.registry.tables import metadata
from tests.container.builder import REPOSITORY, Builder, command
from tests.servers import free_port

USER = "42415:42415"
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
#: A base, which takes a minute to make.
CACHE = REPOSITORY / "build/container"
MAX_BYTES = 600_000_000
SECONDS = 180
#: Where evscrub.conf is looked for when no argument names it.
HOME = "HOME=/mnt"


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    folder = tmp_path_factory.mktemp("container")
    yield Builder(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def image(builder: Builder) -> str:
    return builder.build(builder.base(CACHE))


@pytest.fixture(scope="module")
def config(builder: Builder, image: str) -> Any:
    return json.loads(builder.run("inspect", "--type", "image", image))["Docker"]["config"]


@pytest.fixture(scope="module")
def root(builder: Builder, image: str) -> Iterator[Path]:
    with builder.mounted(image) as files:
        yield files


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Return a folder with what an operator mounts: a configuration, a database, a file store."""
    (tmp_path / "images").mkdir()
    port = free_port()
    engine = sa.create_engine(f"sqlite:///{tmp_path}/glance.sqlite")
    metadata.create_all(engine)
    engine.dispose()
    (tmp_path / "evscrub.conf").write_text(
        "[DEFAULT]\nglance_config_files = none\ndelayed_delete = true\nscrub_time = 60\n"
        "transport_url = kombu+memory://\n"
        "[database]\nconnection = sqlite:////mnt/glance.sqlite\n"
        "[glance_store]\nfilesystem_store_datadir = /mnt/images\n"
        f"[status]\nlisten = 127.0.0.1:{port}\n"
    )
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, *map(int, USER.split(":")))
    return tmp_path


def run(root: Path, shared: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the image to its end."""
    line = command(root, USER, shared, arguments)
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=SECONDS)


def test_says_what_it_is(config: Any) -> None:
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in config["Labels"].items()
    }
    assert labels["title"] == "evscrub"
    assert labels["version"] == VERSION
    assert labels["licenses"] == "Apache-2.0"
    assert labels.keys() >= {"description", "source", "documentation", "authors", "revision"}


def test_runs_as_glance_and_not_as_root(config: Any) -> None:
    assert config["User"] == USER


def test_size(root: Path) -> None:
    used = subprocess.run(["du", "-sbx", root], capture_output=True, text=True, check=True)
    size_bytes = int(used.stdout.split()[0])
    print(f"The image has {size_bytes / 1e6:.0f} MB of files")
    assert size_bytes < MAX_BYTES


def test_program_and_its_files_are_there(root: Path, shared: Path) -> None:
    assert run(root, shared, "evscrub", "--version").stdout == f"evscrub {VERSION}\n"
    found = run(root, shared, "evscrub", "--data-dir").stdout
    assert found == "/opt/evscrub/share/evscrub\n"
    assert run(root, shared, "python3", "-c", "import rados, rbd").returncode == 0


def test_agent_is_healthy_while_it_runs_and_changes_no_file_of_the_image(
    config: Any, root: Path, shared: Path
) -> None:
    kind, *check = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    (port,) = re.findall(r"listen = (.*)", (shared / "evscrub.conf").read_text())

    def is_healthy() -> bool:
        return run(root, shared, "env", f"OS_STATUS__LISTEN={port}", *check).returncode == 0

    assert not is_healthy()
    assert config["Entrypoint"] == ["evscrub"]
    line = [*config["Entrypoint"], *config["Cmd"]]
    with (shared / "log").open("w") as log:
        agent = subprocess.Popen(
            command(root, USER, shared, ["env", HOME, *line]), stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + SECONDS
        while "Status page on" not in (shared / "log").read_text():
            assert agent.poll() is None, (shared / "log").read_text()
            assert time.monotonic() < end, (shared / "log").read_text()
            time.sleep(0.2)
        assert is_healthy()
    finally:
        agent.terminate()
    assert agent.wait(SECONDS) == 0
    assert not is_healthy()
    said = (shared / "log").read_text()
    assert "Traceback" not in said
    assert "Read-only file system" not in said
