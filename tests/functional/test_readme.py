# SPDX-License-Identifier: Apache-2.0
"""The commands of README.rst, as a new user runs them: each as it is written there, in its order.

A new environment finds its packages in this one, which takes seconds. With
``EVSCRUB_README=network`` in the environment, it gets them from the package index, as on a fresh
machine, and images are kept as long as README.rst says. The time of each command is printed.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from docutils import nodes
from docutils.core import publish_doctree

from evscrub.demo.glance_config import GlanceConfig
from tests.functional.agents import Registry, wait_for
from tests.functional.conftest import GlanceFactory, RegistryFactory
from tests.glance_client import GlanceClient
from tests.servers import RabbitMQ, free_port

ROOT = Path(__file__).parents[2]
IS_FRESH = os.environ.get("EVSCRUB_README") == "network"
_DEADLINE_SECONDS = 900.0 if IS_FRESH else 600.0


def blocks(language: str) -> list[str]:
    """Return the texts of README.rst's blocks of code in a language."""
    document = publish_doctree((ROOT / "README.rst").read_text())
    return [
        node.astext()
        for node in document.findall(nodes.literal_block)
        if language in node["classes"]
    ]


COMMANDS = [command for block in blocks("shell") for command in block.splitlines()]
#: What makes the environment, runs the demo, runs all tests, and runs evscrub beside Glance.
VENV, DEMO, TESTS, BESIDE = COMMANDS[0], COMMANDS[1:3], COMMANDS[3], COMMANDS[4:]
GLANCE_CONF, EVSCRUB_CONF = blocks("ini")


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{time.monotonic() - began:6.1f} s  {what}")


class Clone:
    """A copy of the repository, in which commands are run.

    :param folder: where it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "evscrub"
        self.home = folder / "home"
        self.home.mkdir()
        ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, self.folder, ignore=ignored)
        self.port = free_port()
        paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
        self.variables = os.environ | {
            "PATH": os.pathsep.join(paths),
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            # Another agent of this run may have the usual port.
            "OS_STATUS__LISTEN": f"127.0.0.1:{self.port}",
        }
        self.variables.pop("PYTHONPATH", None)
        if not IS_FRESH:
            self.variables |= {
                "PYTHONPATH": sysconfig.get_path("purelib"),
                "PIP_NO_INDEX": "1",
                "PIP_NO_BUILD_ISOLATION": "0",
                "PIP_NO_COMPILE": "1",
                "PIP_NO_WARN_CONFLICTS": "1",
            }

    def run(self, command: str) -> str:
        """Run a command to its end, which must be a success, and return what it printed."""
        with timed(command):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self.variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_DEADLINE_SECONDS,
                check=False,
            )
        assert done.returncode == 0, done.stdout
        assert "does not provide the extra" not in done.stdout  # pip only warns
        return done.stdout

    @contextmanager
    def running(self, command: str, output: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command until Ctrl-C."""
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.variables,
                stdout=file,
                stderr=file,
            )
        try:
            yield process
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = Clone(tmp_path_factory.mktemp("readme"))
    clone.run(VENV)
    return clone


def test_commands_are_those_that_are_run() -> None:
    """The one of the tests runs this test, among all others."""
    assert VENV.startswith("python3 -m venv ")
    assert DEMO[1] == ".venv/bin/evscrub demo"
    assert TESTS in (ROOT / ".ci/run").read_text().splitlines()
    assert [command.split()[1] for command in BESIDE[1:]] == ["check", "agent", "list", "status"]


def test_demo(clone: Clone) -> None:
    install, demo = DEMO
    clone.run(install)
    said = clone.run(demo)
    assert said.count("\n ok ") == 6
    assert "Every deleted image's data is gone" in said
    assert "Traceback" not in said
    assert not list(clone.home.glob("evscrub-demo-*"))


def test_agent_beside_glance(
    clone: Clone,
    glance: GlanceFactory,
    new_registry: RegistryFactory,
    rabbitmq: RabbitMQ,
    tmp_path: Path,
) -> None:
    install, check, agent, listing, status = BESIDE
    clone.run(install)
    glance_ini = configparser.RawConfigParser(default_section="")
    glance_ini.read_string(GLANCE_CONF)
    process = glance(
        database_url=new_registry("mariadb", "readme"),
        transport_url=rabbitmq.url,
        topics=(),
        delayed_delete=False,
        extra={group: dict(glance_ini[group]) for group in glance_ini.sections()},
    )
    # The restore comes in time, however busy the machine is.
    write_config(clone, process.config, **({} if IS_FRESH else {"scrub_time": "3600"}))
    assert "Success" in clone.run(check)

    log = tmp_path / "agent.log"
    with GlanceClient(process.url) as client, clone.running(agent, log) as running:
        page = f"http://127.0.0.1:{clone.port}"
        with timed("from the agent's start to its page"):
            wait_for("the agent", lambda: answers(f"{page}/readyz"))
            assert "<title>" in get(f"{page}/")
        images = [client.create(f"image {number}") for number in range(2)]
        for image in images:
            client.upload(image, b"x" * 100)
            client.delete(image)
        scrubbed, restored = images
        listed = clone.run(listing)
        assert scrubbed in listed
        assert restored in listed
        clone.run(f"{listing.rpartition(' ')[0]} restore {restored}")
        if not IS_FRESH:
            write_config(clone, process.config, scrub_time="1")
            running.send_signal(signal.SIGHUP)
        registry = Registry(process.config.database_url)
        with timed("from the restore to the first scrub"):
            wait_for("the scrub", lambda: registry.is_scrubbed(scrubbed))
        assert client.get(restored)["status"] == "active"
        wait_for("its line", lambda: f"Scrubbed 1 image: {scrubbed}" in log.read_text())
        assert "evscrub_images_scrubbed_total 1.0" in get(f"{page}/metrics")
        assert re.search(r"scrubbed +1, 100 B\n", clone.run(status))
    assert "Traceback" not in log.read_text()


def write_config(clone: Clone, glance: GlanceConfig, **changes: str) -> None:
    """Write README.rst's ``evscrub.conf``, with some values changed, where evscrub looks for it."""
    ini = configparser.RawConfigParser(default_section="")
    ini.read_string(EVSCRUB_CONF)
    changes["glance_config_files"] = f"{glance.directory}/glance-api.conf"
    for name, value in changes.items():
        assert name in ini["DEFAULT"]
        ini["DEFAULT"][name] = value
    path = clone.home / ".evscrub/evscrub.conf"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        ini.write(file)


def get(url: str) -> str:
    answer = httpx.get(url, timeout=60, trust_env=False)
    answer.raise_for_status()
    return answer.text


def answers(url: str) -> bool:
    try:
        get(url)
    except httpx.HTTPError:
        return False
    return True
