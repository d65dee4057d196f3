# SPDX-License-Identifier: Apache-2.0
"""``evscrub list`` on a seeded registry of each kind, with and without a running agent."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evscrub.domain.address import Address
from evscrub.status import client
from tests.forking import EvscrubPython
from tests.functional import commands
from tests.functional.agents import AgentProcess, Registry, wait_for
from tests.functional.conftest import RegistryFactory
from tests.functional.seed import Seed, seeded_glance
from tests.servers import free_port
from tests.sharing import shared

HOUR = 3600


class Site:
    """A seeded registry on which the command runs."""

    def __init__(
        self, directory: Path, registry_url: str, stores: Mapping[str, str] | None = None
    ) -> None:
        self.glance = seeded_glance(directory, registry_url, stores)
        self.port = free_port()
        self.seed = Seed(self.glance)
        self.agent = AgentProcess(
            directory,
            self.glance,
            {
                "DEFAULT": {"scrub_time": HOUR},
                "status": {"listen": f"127.0.0.1:{self.port}"},
                "scrubber": {"claim_timeout": 600},
            },
        )
        self.agent.write_config()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return commands.run("list", "--config-file", self.agent.config_path, *arguments)

    def list(self, *arguments: str) -> dict[str, dict[str, object]]:
        """Return rows by id."""
        done = self.run("-f", "json", *arguments)
        assert done.returncode == 0, done.stderr
        return {row["ID"]: row for row in json.loads(done.stdout)}

    def states(self, *arguments: str) -> dict[str, object]:
        return {image_id: row["State"] for image_id, row in self.list(*arguments).items()}


@pytest.fixture
def site(tmp_path: Path, registry_url: str) -> Site:
    return Site(tmp_path, registry_url)


def test_each_state_is_listed_and_can_be_selected(site: Site, registry_url: str) -> None:
    seed = site.seed
    began = time.monotonic()
    waiting = seed.add(deleted_ago=HOUR / 2, owner="o1")
    due = seed.add(deleted_ago=2 * HOUR, owner="o2", store="slow")
    held = seed.add(deleted_ago=None, owner="o1")
    damaged = seed.add(deleted_ago=2 * HOUR, status="active")
    claimed = seed.add(deleted_ago=2 * HOUR, status="deleted")
    stale = seed.add(deleted_ago=2 * HOUR, status="deleted")
    seed.write()
    Registry(registry_url).execute(
        "UPDATE image_locations SET updated_at = deleted_at WHERE image_id = :id", id=stale
    )
    clock = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
    if registry_url.startswith("postgresql"):
        clock = "timezone('UTC', clock_timestamp())"
    elif registry_url.startswith("mysql"):
        clock = "UTC_TIMESTAMP()"
    Registry(registry_url).execute(
        f"UPDATE image_locations SET updated_at = {clock} WHERE image_id = :id", id=claimed
    )
    states = site.states()
    assert states == {
        waiting: "waiting",
        due: "due",
        held: "held",
        damaged: "damaged",
        claimed: "claimed",
        stale: "due",
    }
    # By due time; those that have none come last.
    *overdue, fourth, last, last_but_one = states
    assert set(overdue) == {due, claimed, stale}
    assert fourth == waiting
    assert {last, last_but_one} == {held, damaged}
    due_times = [(str(row["Due At"]), name) for name, row in site.list().items()][:4]
    assert due_times == sorted(due_times)
    descending = list(site.states("--sort-descending"))
    assert [set(descending[:2]), descending[2]] == [{held, damaged}, waiting]
    assert list(site.states("--sort-column", "ID")) == sorted(states)
    assert list(site.states("--sort-column", "id", "--sort-descending")) == sorted(states)[::-1]
    by_owner = site.run(
        "-f", "json", "--sort-column", "colour", "--sort-column", "owner", "--sort-column", "stores"
    )
    assert "no column colour: there are ID" in by_owner.stderr
    owners = [(row["Owner"], row["Stores"]) for row in json.loads(by_owner.stdout)]
    assert owners == sorted(owners)
    for state in ("waiting", "due", "claimed", "held", "damaged", "parked", "in-use"):
        wanted = {image for image, shown in states.items() if shown == state}
        done = site.run("-f", "json", "--state", state)
        assert {row["ID"] for row in json.loads(done.stdout)} == wanted
        # No agent answers, and only agents know some states.
        assert done.returncode == (1 if state in {"parked", "in-use"} else 0)
    assert set(site.list("--state", "held", "--state", "Waiting")) == {held, waiting}
    assert set(site.list("--due")) == {due, stale}
    assert set(site.list("--held")) == {held}
    assert set(site.list("--held", "--due", "--store", "slow")) == {due}
    assert set(site.list("--owner", "o1")) == {waiting, held}
    assert len(site.list("--limit", "2")) == 2
    assert site.list("--limit", "0") == {}
    row = site.list("--owner", "o2")[due]
    assert row["Stores"] == ["slow"]
    assert row["Size"] == 1000
    assert began - time.monotonic() - 2 < int(str(row["Due In"])) + HOUR <= 0


def test_parked_images_are_read_from_the_agent(site: Site) -> None:
    parked = site.seed.add(deleted_ago=2 * HOUR, store="nowhere")
    waiting = site.seed.add(deleted_ago=HOUR / 2)
    site.seed.write()
    done = site.run("--parked", "-f", "json")
    assert done.returncode == 1
    assert "shown as due" in done.stderr
    assert site.states() == {parked: "due", waiting: "waiting"}
    with site.agent:
        wait_for("parking", lambda: site.states() == {parked: "parked", waiting: "waiting"})
        (row,) = site.list("--parked").values()
        assert "enabled_backends" in str(row["Reason"])
        assert site.states("--agent", f"127.0.0.1:{site.port}", "--due") == {}


def test_paused_store_is_listed_as_reason(tmp_path: Path, new_registry: RegistryFactory) -> None:
    """All of its data is missing: no image counts as deleted, and every output says why."""
    site = Site(tmp_path, new_registry("sqlite", "paused"))
    site.seed.path("other").write_bytes(b"x")  # an empty directory would be told at once
    images = {site.seed.add(deleted_ago=2 * HOUR, with_file=False) for _ in range(30)}
    elsewhere = site.seed.add(deleted_ago=HOUR / 2, store="slow")
    site.seed.write()
    with site.agent:
        site.agent.wait_for_log("is paused")

        def reasons() -> dict[str, str]:
            return {name: str(row["Reason"]) for name, row in site.list().items()}

        wait_for("reasons", lambda: all(reasons()[image] for image in images))
        for image, reason in reasons().items():
            if image == elsewhere:
                assert reason == ""
            else:
                assert "store fast is paused: 20 images are not there" in reason
        assert set(site.states("--due")) == images
        told = "evscrub: store fast is paused: 20 images are not there"
        assert told in site.run("--state", "waiting").stderr
        assert told not in site.run("--store", "slow").stderr

        def fast() -> dict[str, Any]:
            stores = client.status(Address("127.0.0.1", site.port))["stores"]
            return next(store for store in stores if store["name"] == "fast")

        # Some may still be waiting for another try.
        wait_for("images in the lane", lambda: fast()["ready"] + fast()["claimed"] == len(images))
        checked = commands.run("check", "--json", "--config-file", site.agent.config_path)
        assert checked.returncode == 2
        (agents,) = [
            one for one in json.loads(checked.stdout)["checks"] if one["check"] == "Agents"
        ]
        assert agents["result"] == 2
        assert "store fast is paused: 20 images are not there" in agents["details"]
        assert "30 images wait" in agents["details"]
        store = fast()
        assert (store["gone"], store["not_found"], store["bytes"]) == (0, 0, 0)
        assert "Scrubbed" not in site.agent.log


def test_single_store_is_selected_by_its_type(
    tmp_path: Path, new_registry: RegistryFactory
) -> None:
    site = Site(tmp_path, new_registry("sqlite", "single"), stores={})
    with (tmp_path / "glance-api.conf").open("a") as file:
        file.write("\n[glance_store]\nstores = file,s3\n")
    on_s3 = site.seed.add(
        deleted_ago=2 * HOUR, url="s3+https://key:secret@s3.test/bucket/object", named=False
    )
    site.seed.write()
    assert set(site.list("--store", "s3")) == {on_s3}
    assert site.list("--store", "file") == {}
    unknown = site.run("--store", "s3+https", "-f", "json")
    assert json.loads(unknown.stdout) == []
    assert "no store s3+https is enabled here; enabled stores: file, s3" in unknown.stderr
    assert unknown.returncode == 2


def test_held_image_shows_its_deletion_time(site: Site, registry_url: str) -> None:
    held = site.seed.add(deleted_ago=2 * HOUR)
    site.seed.write()
    before = site.list()[held]["Deleted At"]
    Registry(registry_url).execute("UPDATE images SET deleted_at = NULL WHERE id = :id", id=held)
    row = site.list("--held")[held]
    assert (row["State"], row["Deleted At"]) == ("held", before)
    tag = "INSERT INTO image_tags (image_id, value, created_at, deleted, deleted_at) SELECT"
    tag += " id, 'a tag', created_at, deleted, updated_at FROM images"
    Registry(registry_url).execute(tag)
    Registry(registry_url).execute("UPDATE image_locations SET deleted_at = NULL")
    assert site.list("--held")[held]["Deleted At"] not in {None, before}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=False)
def test_wrong_arguments_are_reported(tmp_path: Path, database_url: str) -> None:
    site = Site(tmp_path, f"sqlite:///{tmp_path / 'none.sqlite'}")
    wrong = (
        *(["-c", "colour"], ["--agent", "nowhere"], ["--limit", "-1"]),
        *(["--watch", "0"], ["--watch", ""], ["--state", "asleep"], ["--state", ""]),
        ["--sort-ascending", "--sort-descending"],
    )
    for arguments in wrong:
        done = site.run(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_a_terminal_is_watched_until_ctrl_c(tmp_path: Path, new_registry: RegistryFactory) -> None:
    """Also a terminal that is narrower than an id, and one whose size changes."""
    site = Site(tmp_path, new_registry("sqlite", "watched"))
    image = site.seed.add(deleted_ago=HOUR / 2)
    site.seed.write()
    options = ("--config-file", str(site.agent.config_path))
    terminal, inside = pty.openpty()
    _resize(inside, rows=10, columns=30)
    command = [sys.executable, "-m", "evscrub", "list", *options, "--watch", "60"]
    watched = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    try:
        _read_until(terminal, f"|{image}|")
        # The pause takes much longer than the test: only the size has changed.
        _resize(terminal, rows=20, columns=100)
        watched.send_signal(signal.SIGWINCH)
        shown = _read_until(terminal, "waiting |")
        assert f"| {image} |" in shown
        watched.send_signal(signal.SIGINT)
        assert watched.wait(60) == 0
    finally:
        watched.kill()
        watched.wait()
        os.close(terminal)
    assert "Traceback" not in shown


def _resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _read_until(terminal: int, wanted: str) -> str:
    shown = ""

    def found() -> bool:
        nonlocal shown
        if select.select([terminal], [], [], 0)[0]:
            shown += os.read(terminal, 65536).decode()
        return wanted in shown

    wait_for(wanted, found)
    return shown


def test_many_rows_are_listed_in_constant_memory(site: Site) -> None:
    peaks = []
    for count in (1000, 9000):
        for _ in range(count):
            site.seed.add(deleted_ago=60, with_file=False)
        site.seed.write()
        rows, peak = _measure(site)
        peaks.append(peak)
    assert rows == 10_000
    # It takes 6,000 more at the most, and 9,500 at the least if it keeps all rows.
    assert peaks[1] < peaks[0] + 7_500, "KiB"


def _measure(site: Site) -> tuple[int, int]:
    """Return the number of rows and the peak memory of the command in KiB."""
    # Not getrusage: what it says begins with what the process had that this one was made from.
    done = commands.run(
        *("list", "--config-file", site.agent.config_path, "-f", "csv"),
        module="tests.functional.with_peak",
    )
    assert done.returncode == 0, done.stderr
    rows = sum(1 for _ in csv.DictReader(io.StringIO(done.stdout)))
    return rows, int(done.stderr.partition("VmHWM:")[2].split()[0])


def test_a_reader_that_leaves_is_no_error(site: Site) -> None:
    for _ in range(5000):  # more than a pipe holds
        site.seed.add(deleted_ago=60, with_file=False)
    site.seed.write()
    python = shared(EvscrubPython).python
    command = f"{python} -m evscrub list --config-file {site.agent.config_path}"
    script = f'exec 3>&1; {{ {command} -f csv; echo "exit $?" >&3; }} | head -n 1 > /dev/null'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "exit 0\n"
    assert "Traceback" not in done.stderr
