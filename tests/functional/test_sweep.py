# SPDX-License-Identifier: Apache-2.0
"""``evscrub sweep`` and its rehearsal, on a seeded registry of each kind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.functional import commands
from tests.functional.agents import AgentProcess, Registry, wait_for
from tests.functional.conftest import IMAGE_TABLES, RegistryFactory
from tests.functional.seed import Seed, seeded_glance

HOUR = 3600


class Site:
    """A seeded registry, with the configuration of an agent beside it."""

    def __init__(
        self, directory: Path, registry_url: str, options: Mapping[str, Any] | None = None
    ) -> None:
        self.glance = seeded_glance(directory, registry_url)
        self.seed = Seed(self.glance)
        self.registry = Registry(registry_url)
        self.agent = AgentProcess(
            directory,
            self.glance,
            {
                "DEFAULT": {"scrub_time": HOUR, "log_file": directory / "pass.log"},
                **(options or {}),
            },
        )
        self.agent.write_config()
        for store in ("fast", "slow"):  # an empty directory looks unmounted
            path = self.seed.path("other", store)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return commands.run("sweep", "--config-file", self.agent.config_path, *arguments)

    def rehearse(self, *arguments: object) -> tuple[int, list[dict[str, Any]]]:
        done = self.run("--dry-run", "-f", "json", *arguments)
        assert "Traceback" not in done.stderr
        return done.returncode, json.loads(done.stdout)

    def add_location(self, image_id: str, store: str) -> None:
        """Add a location like the image's first one, in another store."""
        path = self.seed.path(image_id, store)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"data")
        self.registry.execute(
            "INSERT INTO image_locations (image_id, value, meta_data, status, deleted, deleted_at,"
            " created_at, updated_at) SELECT image_id, :value, :store, status, deleted, deleted_at,"
            " created_at, updated_at FROM image_locations WHERE image_id = :id",
            id=image_id,
            value=f"file://{path}",
            store=json.dumps({"store": store}),
        )

    def files(self) -> dict[str, int]:
        """Times of change of all files of the stores, by path."""
        return {
            str(path): path.stat().st_mtime_ns
            for store in ("fast", "slow")
            for path in (p for p in self.glance.data_directory(store).rglob("*"))
        }

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of images."""
        with self.registry.engine.connect() as connection:
            return {
                table: sorted(
                    map(tuple, connection.execute(sa.text(f"SELECT * FROM {table}"))), key=repr
                )
                for table in IMAGE_TABLES
            }


@pytest.fixture
def site(tmp_path: Path, registry_url: str) -> Site:
    return Site(tmp_path, registry_url)


def add_all(site: Site) -> dict[str, str]:
    """Add an image of each kind; returns them by what becomes of them."""
    seed = site.seed
    shared_url = f"file://{seed.path('shared')}"
    seed.path("shared").write_bytes(b"data")
    images = {
        "goes": seed.add(deleted_ago=2 * HOUR, owner="o1"),
        "goes too": seed.add(deleted_ago=3 * HOUR, owner="o2", store="slow", size=5000),
        "waits": seed.add(deleted_ago=HOUR / 2, owner="o1"),
        "held": seed.add(deleted_ago=None),
        "nowhere": seed.add(deleted_ago=2 * HOUR, store="nowhere", url="file:///nowhere/x"),
        "damaged": seed.add(deleted_ago=2 * HOUR, status="active"),
        "shares": seed.add(deleted_ago=2 * HOUR, url=shared_url),
        "needs it": seed.add(deleted_ago=HOUR / 2, url=shared_url),
        "claimed": seed.add(deleted_ago=2 * HOUR, status="deleted"),
        "expired": seed.add(deleted_ago=2 * HOUR, status="deleted"),
    }
    seed.write()
    clock = {"sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now')", "mysql": "UTC_TIMESTAMP()"}.get(
        site.registry.engine.dialect.name, "timezone('UTC', clock_timestamp())"
    )
    site.registry.execute(
        f"UPDATE image_locations SET updated_at = {clock} WHERE image_id = :id",
        id=images["claimed"],
    )
    return images


def test_rehearsal_changes_nothing_and_the_pass_does_what_it_said(site: Site) -> None:
    site.agent.options["scrubber"]["claim_timeout"] = 600
    site.agent.write_config()
    images = add_all(site)
    names = {image_id: name for name, image_id in images.items()}
    before = site.rows(), site.files()
    code, rows = site.rehearse("--long")
    assert code == 1
    fates = {names[row["ID"]]: row["Fate"] for row in rows}
    assert fates == {
        "goes": "goes",
        "goes too": "goes",
        "expired": "goes",
        "shares": "finished",
        "nowhere": "stays",
        "claimed": "stays",
        "waits": "later",
        "held": "later",
        "damaged": "later",
        "needs it": "later",
    }
    reasons = {names[row["ID"]]: row["Reason"] for row in rows}
    assert "enabled_backends" in reasons["nowhere"]
    assert reasons["shares"] == "another image has the same data"
    assert reasons["held"] == "held until it is released"
    assert reasons["damaged"].startswith("damaged: ")
    code, sums = site.rehearse()
    assert code == 1
    assert {
        "Store": "slow",
        "Owner": "o2",
        "Fate": "goes",
        "Images": 1,
        "Size": 5000,
    }.items() <= sums[[row["Store"] for row in sums].index("slow")].items()
    assert sum(row["Images"] for row in sums) == len(images)
    assert site.rehearse("--owner", "o1", "--store", "fast")[0] == 0
    assert (site.rows(), site.files()) == before

    done = site.run("--wait", 2)
    assert done.returncode == 1
    assert "Scrubbed 4 images" in done.stdout
    assert "Left: 1 image, 1000 B: claimed by another agent or pass" in done.stdout
    assert "enabled_backends" in done.stdout
    gone = {name for name, image_id in images.items() if site.registry.is_scrubbed(image_id)}
    assert gone == {"goes", "goes too", "expired", "shares"}
    assert site.seed.path("shared").exists()
    assert not site.seed.path(images["goes"]).exists()


def test_two_passes_at_once_share_the_work_as_cron_runs_them(site: Site) -> None:
    """No terminal, no lock; a scrubbed image is logged by one of them alone."""
    images = [site.seed.add(deleted_ago=2 * HOUR, owner=f"o{n % 5}") for n in range(300)]
    site.seed.write()
    arguments = ("sweep", "--config-file", site.agent.config_path, "--quiet", "--wait", "60")
    passes = [
        commands.Command(arguments, site.agent.directory / name, site.agent.directory / name)
        for name in ("one", "two")
    ]
    assert [each.wait(120) for each in passes] == [0, 0]
    assert all(site.registry.is_scrubbed(image_id) for image_id in images)
    assert not any(site.seed.path(image_id).exists() for image_id in images)
    told = Counter(
        word
        for line in (site.agent.directory / "pass.log").read_text().splitlines()
        if "Scrubbed" in line
        for word in line.partition("Scrubbed ")[2].split()
        if len(word) == 36
    )
    assert told == Counter(images)
    assert [(site.agent.directory / name).read_text() for name in ("one", "two")] == ["", ""]


def test_selections(site: Site) -> None:
    add = site.seed.add
    mine = [add(deleted_ago=2 * HOUR, owner="me") for _ in range(5)]
    slow = add(deleted_ago=2 * HOUR, owner="other", store="slow")
    waits = add(deleted_ago=HOUR / 2, owner="other")
    site.seed.write()
    done = site.run("--image", slow.upper(), waits, "--wait", 0)
    assert (done.returncode, "Scrubbed 1 image," in done.stdout) == (0, True)
    assert site.registry.is_scrubbed(slow)
    done = site.run("--image", slow, "no-such-image", "--wait", 0)
    assert (done.returncode, "Scrubbed 0 images" in done.stdout) == (1, True)
    done = site.run("--image", "no-such-image", "--wait", 0)
    assert (done.returncode, done.stderr) == (
        1,
        "evscrub: no-such-image: it is not in the registry\n",
    )
    done = site.run("--image", waits, "--wait", 0)
    assert (done.returncode, "Not due: 1 image" in done.stdout) == (0, True)
    assert site.run("--store", "slow", "--wait", 0).returncode == 0
    code, rows = site.rehearse("--owner", "me", "--limit", 2, "--long")
    assert (code, Counter(row["Reason"] for row in rows)) == (1, {"": 2, "beyond --limit": 3})
    done = site.run("--owner", "me", "--limit", 2, "--wait", 0)
    assert done.returncode == 1
    assert "Scrubbed 2 images" in done.stdout
    assert "Left: 3 images, 2.9 KiB: beyond --limit" in done.stdout
    done = site.run("-f", "json", "--owner", "me", "--wait", 0)
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert all(map(site.registry.is_scrubbed, mine))
    assert site.registry.status(waits)[0] == "pending_delete"
    for wrong, said in (
        (("--store", "none"), "enabled stores: fast, slow"),
        (("--limit", "-1"), "--limit"),
        (("--limit", "many"), "--limit"),
        (("--dry-run", "-c", "Nothing"), "no column"),
        (("--long",), "--long is for --dry-run"),
    ):
        done = site.run(*wrong)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_paused_and_parked_are_left_and_told(tmp_path: Path, new_registry: RegistryFactory) -> None:
    site = Site(tmp_path, new_registry("sqlite", "left"), {"scrubber": {"not_found_limit": 3}})
    add = site.seed.add
    gone = [add(deleted_ago=2 * HOUR, owner=f"o{n % 4}", with_file=False) for n in range(20)]
    parked = add(deleted_ago=2 * HOUR, store="slow", url="file:///elsewhere/x")
    bad = add(deleted_ago=2 * HOUR, store="slow")
    site.seed.write()
    site.registry.execute("UPDATE images SET deleted_at = 'nonsense' WHERE id = :id", id=bad)
    code, rows = site.rehearse("--long")
    assert code == 1
    (row,) = (row for row in rows if row["ID"] == bad)
    assert (row["Fate"], "cannot be read" in row["Reason"]) == ("stays", True)
    done = site.run("--wait", 10)
    assert done.returncode == 1
    assert "store fast is paused: 3 images are not there" in done.stdout
    assert "Left: 1 image, 0 B: its rows in images or image_locations cannot be" in done.stdout
    assert site.registry.status(parked)[0] == "pending_delete"
    assert {site.registry.status(image_id)[0] for image_id in gone} == {"pending_delete"}


def test_sigterm_finishes_what_is_running(tmp_path: Path, new_registry: RegistryFactory) -> None:
    """The rest is released: nothing stays claimed."""
    site = Site(tmp_path, new_registry("sqlite", "term"), {"scrubber": {"rate": 5, "burst": 1}})
    images = [site.seed.add(deleted_ago=2 * HOUR) for _ in range(200)]
    site.seed.write()
    out = tmp_path / "out"
    command = commands.Command(("sweep", "--config-file", site.agent.config_path), out, out)
    wait_for("a delete", lambda: not all(site.seed.path(image).exists() for image in images))
    command.send_signal(signal.SIGTERM)
    assert command.wait(60) == 1
    assert "ended by a signal" in out.read_text()
    left = {image_id for image_id in images if site.seed.path(image_id).exists()}
    assert 0 < len(left) < 200
    for image_id in images:
        status = "pending_delete" if image_id in left else "deleted"
        assert site.registry.status(image_id) == (status, {status})


def test_pass_ends_although_rows_stay_locked(tmp_path: Path, new_registry: RegistryFactory) -> None:
    """The client that has locked them may be gone for hours."""
    options = {"scrubber": {"rate": 0.2, "burst": 1}}
    site = Site(tmp_path, new_registry("mariadb", "locked"), options)
    images = [site.seed.add(deleted_ago=2 * HOUR) for _ in range(3)]
    site.seed.write()
    out = tmp_path / "out"
    arguments = ("sweep", "--config-file", site.agent.config_path, "--wait", "0")
    command = commands.Command(arguments, out, out)

    def left() -> list[str]:
        return [image_id for image_id in images if site.seed.path(image_id).exists()]

    # The third delete is 5 s away then; another might be under way.
    wait_for("two deletes", lambda: len(left()) == 1)
    (blocked,) = left()
    wait_for("the claim", lambda: site.registry.status(blocked)[0] == "deleted")
    with site.registry.engine.begin() as connection:
        query = sa.text("SELECT id FROM image_locations WHERE image_id = :id FOR UPDATE")
        connection.execute(query, {"id": blocked}).all()
        assert command.wait(120) == 1
    assert not left()
    assert [each for each in images if not site.registry.is_scrubbed(each)] == [blocked]


def test_small_passes_do_not_wear_a_wrong_store_down(
    tmp_path: Path, new_registry: RegistryFactory
) -> None:
    """Each pass counts missing images from zero, so none of them may trust a few."""
    site = Site(tmp_path, new_registry("sqlite", "small"), {"scrubber": {"not_found_limit": 3}})
    images = [site.seed.add(deleted_ago=2 * HOUR, with_file=False) for _ in range(4)]
    site.seed.write()
    for _ in range(2):
        done = site.run("--limit", 2, "--wait", 5)
        assert (done.returncode, "Scrubbed 0 images" in done.stdout) == (1, True)
        assert "the data is not there" in done.stdout
    assert {site.registry.status(image_id)[0] for image_id in images} == {"pending_delete"}


def test_what_is_left_of_an_image_counts_whatever_its_store(
    tmp_path: Path, new_registry: RegistryFactory
) -> None:
    site = Site(tmp_path, new_registry("sqlite", "two"))
    image_id = site.seed.add(deleted_ago=2 * HOUR)
    site.seed.write()
    site.add_location(image_id, "nowhere")
    assert site.run("--store", "fast", "--wait", 0).returncode == 1
    assert not site.seed.path(image_id).exists()


def test_a_store_that_an_agent_has_paused_is_left_alone(
    tmp_path: Path, new_registry: RegistryFactory
) -> None:
    site = Site(tmp_path, new_registry("sqlite", "asked"))
    images = {store: site.seed.add(deleted_ago=2 * HOUR, store=store) for store in ("fast", "slow")}
    both = site.seed.add(deleted_ago=2 * HOUR)
    unnamed = site.seed.add(deleted_ago=2 * HOUR, store="slow", named=False)
    site.seed.write()
    site.add_location(both, "slow")

    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            told = {"store": "slow", "state": "blown", "reason": "an image is not there"}
            self.wfile.write(json.dumps(told).encode() + b"\n")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Agent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        agent = ("--agent", f"127.0.0.1:{server.server_port}")
        code, rows = site.rehearse(*agent, "--long")
        assert code == 1
        assert {row["Store"]: row["Fate"] for row in rows if row["ID"] == unnamed} == {
            "slow": "stays"
        }
        done = site.run(*agent, "--wait", 0)
        server.shutdown()
    assert done.returncode == 1
    assert "store slow is paused: an image is not there" in done.stdout
    assert site.registry.is_scrubbed(images["fast"])
    for image_id in (images["slow"], both, unnamed):
        assert site.registry.status(image_id) == ("pending_delete", {"pending_delete"})


@pytest.mark.parametrize("shell", ["2>&1 | head -1", "2>&-"])
def test_a_reader_that_leaves_ends_nothing(
    tmp_path: Path, new_registry: RegistryFactory, shell: str
) -> None:
    site = Site(tmp_path, new_registry("sqlite", "left"))
    images = [site.seed.add(deleted_ago=2 * HOUR) for _ in range(30)]
    site.seed.write()
    command = f"{sys.executable} -m evscrub sweep --config-file {site.agent.config_path} {shell}"
    subprocess.run(command, shell=True, check=False, timeout=120, stdout=subprocess.DEVNULL)
    assert all(map(site.registry.is_scrubbed, images))


def test_a_pass_is_a_member_of_the_agents_group(
    tmp_path: Path, new_registry: RegistryFactory
) -> None:
    group = {
        "scrubber": {"rate": 100},
        "coordination": {
            "backend_url": f"file://{tmp_path}/group",
            "membership_timeout": 3,
            "heartbeat_interval": 0.5,
        },
    }
    site = Site(tmp_path, new_registry("sqlite", "group"), group)
    for _ in range(3):
        site.seed.add(deleted_ago=2 * HOUR)
    site.seed.write()
    done = site.run()
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "pass.log").read_text()
    assert "Joined the group evscrub.default" in log
    assert "Using 1 of the limits" in log
    # It has left the group, so that nobody waits for its share.
    assert not list((tmp_path / "group").rglob("*.raw"))
