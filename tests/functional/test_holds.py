# SPDX-License-Identifier: Apache-2.0
"""Restore, hold and release: through the command line, with a real Glance, and on plain rows."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest

from evscrub.commands import operator_log
from evscrub.demo.glance_config import run_command
from evscrub.domain.hold_rules import AFTER, RefusedError
from evscrub.registry.holds import Holds
from tests.chaos.rows import Rows, connect, new_id, utc_now
from tests.functional import commands
from tests.functional.agents import AgentProcess, wait_for
from tests.functional.conftest import GlanceFactory, RegistryFactory
from tests.glance_client import GlanceClient
from tests.glance_process import GlanceProcess

DATA = bytes(range(256)) * 40
SCRUB_TIME = 2
LONG = 3600


def new_config(folder: Path, text: str) -> Path:
    """Write a configuration for evscrub with an empty log beside it, for there may be no syslog.

    No agent is asked: one that runs on this host works beside another Glance.
    """
    log = folder / "evscrub.log"
    log.touch()
    path = folder / "evscrub.conf"
    path.write_text(f"[status]\nlisten = none\n[DEFAULT]\nlog_file = {log}\n{text}\n")
    return path


def evscrub(config: Path, command: str, *image_ids: str) -> subprocess.CompletedProcess[str]:
    """Run the real command line."""
    return commands.run(command, "--config-file", config, *image_ids)


def refused(config: Path, command: str, image_id: str) -> str:
    """Run a command that must be refused; return the reason."""
    done = evscrub(config, command, image_id)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"{image_id}: not ")]
    assert len(lines) == 1, done.stderr
    return lines[0].partition(": not ")[2].partition(": ")[2]


def accepted(config: Path, command: str, *image_ids: str) -> str:
    """Run a command that must succeed; return its further output."""
    done = evscrub(config, command, *image_ids)
    assert done.returncode == 0, done.stdout + done.stderr
    for image_id in image_ids:
        assert f"{image_id}: " in done.stdout
    return done.stderr


def unchanged(config: Path, command: str, image_id: str) -> str:
    """Run a command that has nothing to do, which is no error; return what it says."""
    done = evscrub(config, command, image_id)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.removeprefix(f"{image_id}: ").rstrip("\n")


# -- beside a real Glance


@dataclass
class Site:
    """A Glance with its registry."""

    glance: GlanceProcess
    client: GlanceClient
    rows: Rows
    config: Path
    new_directory: Callable[[], Path]

    def image(self, **fields: object) -> str:
        """Create and upload an image."""
        image_id = self.client.create("image", **fields)  # type: ignore[arg-type] # passed on
        self.client.upload(image_id, DATA)
        return image_id

    def deleted(self, **fields: object) -> str:
        """Create, upload and delete an image."""
        image_id = self.image(**fields)
        self.client.delete(image_id)
        return image_id

    def path(self, image_id: str) -> Path:
        return self.glance.config.data_directory() / image_id

    def members(self, image_id: str) -> set[str]:
        answer = httpx.get(
            f"{self.glance.url}/v2/images/{image_id}/members",
            headers={"X-Project-Id": "admin"},
            timeout=60,
            trust_env=False,
        )
        return {member["member_id"] for member in answer.raise_for_status().json()["members"]}

    def agent(self, scrub_time: int = SCRUB_TIME) -> AgentProcess:
        options: Mapping[str, Mapping[str, object]] = {
            "DEFAULT": {"scrub_time": scrub_time},
            "sweep": {"interval": 1},
        }
        return AgentProcess(self.new_directory(), self.glance.config, options)

    def is_gone(self, image_id: str) -> bool:
        return not self.path(image_id).exists() and self.rows.status(image_id) == (
            "deleted",
            ["deleted"],
        )

    def wait_gone(self, *image_ids: str) -> None:
        for image_id in image_ids:
            wait_for(f"scrubbing of {image_id}", partial(self.is_gone, image_id))

    def glance_scrubber(self, *arguments: str) -> None:
        """Run Glance's own scrubber once."""
        done = run_command(self.glance.config, "tests.functional.scrubber", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def purge(self) -> None:
        """Run Glance's purge of all rows deleted so far."""
        for action in ("purge", "purge_images_table"):
            limits = ("--age_in_days", "0", "--max_rows", "-1")
            done = run_command(self.glance.config, "glance.cmd.manage", "db", action, *limits)
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(
    glance: GlanceFactory, new_registry: RegistryFactory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    url = new_registry("mariadb", "holds")
    process = glance(database_url=url)
    glance_config = process.config.directory / "glance-api.conf"
    folder = tmp_path_factory.mktemp("evscrub")
    config = new_config(folder, f"glance_config_files = {glance_config}")
    with GlanceClient(process.url) as client:
        yield Site(process, client, Rows(url), config, lambda: tmp_path_factory.mktemp("agent"))


PROPERTIES = {"colour": "red", "hw_disk_bus": "scsi"}


def assert_whole(site: Site, image_id: str) -> None:
    """Check that an image created by `rich_image` is unchanged."""
    shown = site.client.get(image_id)
    assert shown["status"] == "active"
    assert {name: shown.get(name) for name in PROPERTIES} == PROPERTIES
    assert sorted(shown["tags"]) == ["new", "old"]
    assert site.members(image_id) == {"bob", "carol"}
    assert len(shown["locations"]) == 1
    assert site.client.download(image_id) == DATA
    image = site.rows.image(image_id)
    assert not image["deleted"]
    assert image["deleted_at"] is None
    for table in ("image_locations", "image_properties", "image_tags", "image_members"):
        for row in site.rows.rows(table, image_id):
            assert bool(row["deleted"]) == (row["deleted_at"] is not None)


def rich_image(site: Site) -> str:
    """Create an image from which a tag and a member were removed long ago."""
    image_id = site.image(properties=PROPERTIES, tags=["old", "new", "dropped"])
    for member in ("bob", "carol", "dropped"):
        site.client.add_member(image_id, member)
    for what in ("tags", "members"):
        httpx.delete(
            f"{site.glance.url}/v2/images/{image_id}/{what}/dropped",
            headers={"X-Project-Id": "admin"},
            timeout=60,
            trust_env=False,
        ).raise_for_status()
    for table in ("image_tags", "image_members"):
        (dropped,) = [row for row in site.rows.rows(table, image_id) if row["deleted"]]
        site.rows.execute(
            f"UPDATE {table} SET deleted_at = :long_ago WHERE id = :id",
            long_ago=utc_now() - timedelta(hours=1),
            id=dropped["id"],
        )
    return image_id


def test_restored_image_is_complete_and_usable(site: Site) -> None:
    """While an agent runs, it is restored, used, deleted again and only then scrubbed."""
    image_id = rich_image(site)
    with site.agent(LONG) as agent:
        site.client.delete(image_id)
        assert accepted(site.config, "restore", image_id) == ""
        assert_whole(site, image_id)
        agent.options["DEFAULT"]["scrub_time"] = SCRUB_TIME
        agent.reload()
        site.wait_gone(site.deleted())
        assert_whole(site, image_id)
        site.client.delete(image_id)
        site.wait_gone(image_id)
        assert refused(site.config, "restore", image_id) == "it is already scrubbed"


def test_image_can_be_restored_twice(site: Site) -> None:
    image_id = rich_image(site)
    for _ in range(2):
        site.client.delete(image_id)
        accepted(site.config, "restore", image_id)
        assert_whole(site, image_id)


def test_property_removed_before_the_delete_comes_back(site: Site) -> None:
    """Glance's DELETE marks it again, so nothing in the registry tells it from the others."""
    image_id = site.image(properties=PROPERTIES | {"dropped": "x"})
    site.client.patch(image_id, [{"op": "remove", "path": "/dropped"}])
    assert "dropped" not in site.client.get(image_id)
    site.rows.execute(
        "UPDATE image_properties SET deleted_at = :long_ago WHERE image_id = :id AND deleted",
        long_ago=utc_now() - timedelta(hours=1),
        id=image_id,
    )
    site.client.delete(image_id)
    deleted_at = site.rows.image(image_id)["deleted_at"]
    for row in site.rows.rows("image_properties", image_id):
        assert deleted_at - timedelta(seconds=10) <= row["deleted_at"] <= deleted_at
    accepted(site.config, "restore", image_id)
    shown = site.client.get(image_id)
    assert {name: shown.get(name) for name in PROPERTIES} == PROPERTIES
    assert shown["dropped"] == "x"


def test_one_refused_image_does_not_affect_the_others(site: Site) -> None:
    first, live, last = site.deleted(), site.image(), site.deleted()
    unknown = new_id()
    done = evscrub(site.config, "restore", first, live, unknown, last)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{first}: restored",
        f"{live}: it is not deleted, it is active",
        f"{last}: restored",
    ]
    assert done.stderr == f"{unknown}: not restored: it is not in the registry\n"
    for image_id in (first, live, last):
        assert site.client.download(image_id) == DATA
    done = evscrub(site.config, "restore", first, live, last)
    assert done.returncode == 0
    assert done.stdout.count(": it is not deleted, it is active\n") == 3


@pytest.mark.parametrize("agent_first", [False, True])
def test_image_restored_by_glance_scrubber_is_repaired(
    site: Site,
    agent_first: bool,
) -> None:
    image_id = rich_image(site)
    site.client.delete(image_id)
    site.glance_scrubber("--restore", image_id)
    assert site.client.download(image_id) == b""
    if agent_first:
        # Damage is told and left alone, until somebody restores the image.
        with site.agent(0) as agent:
            site.wait_gone(site.deleted())
            agent.wait_for_log(f"Image {image_id} is damaged")
        assert site.path(image_id).exists()
    accepted(site.config, "restore", image_id)
    assert_whole(site, image_id)
    site.client.delete(image_id)
    with site.agent():
        site.wait_gone(image_id)


def test_held_image_is_ignored_by_agents_scrubber_and_purge(site: Site) -> None:
    image_id = rich_image(site)
    site.client.delete(image_id)
    accepted(site.config, "hold", image_id)
    assert unchanged(site.config, "hold", image_id) == "it is held already"
    with site.agent(0):
        other = site.deleted()
        site.wait_gone(other)
    third = site.deleted()
    site.glance_scrubber()
    site.wait_gone(third)
    until = time.time() + 2.1  # MySQL keeps whole seconds, and the purge wants older ones
    wait_for("a later second", lambda: time.time() > until)
    site.purge()
    assert site.rows.rows("images", other) == []
    assert site.rows.status(image_id) == ("pending_delete", ["pending_delete"])
    assert site.path(image_id).read_bytes() == DATA
    accepted(site.config, "restore", image_id)
    assert_whole(site, image_id)
    assert refused(site.config, "release", image_id) == "it is not pending delete but active"


def times(rows: Rows, image_id: str) -> tuple[datetime, datetime]:
    """Return when the image was deleted, and its last location."""
    locations = rows.rows("image_locations", image_id)
    return (
        as_time(rows.image(image_id)["deleted_at"]),
        max(as_time(row["deleted_at"]) for row in locations),
    )


def test_released_image_is_scrubbed_after_a_whole_delay(site: Site) -> None:
    image_id = site.deleted(tags=["a"])
    assert times(site.rows, image_id)[1] <= times(site.rows, image_id)[0]
    accepted(site.config, "hold", image_id)
    with site.agent():
        site.wait_gone(site.deleted())
        assert site.path(image_id).exists()
        began = utc_now().replace(microsecond=0)
        accepted(site.config, "release", image_id)
        assert times(site.rows, image_id)[1] > times(site.rows, image_id)[0]
        released_at = site.rows.image(image_id)["deleted_at"]
        assert began <= released_at <= utc_now()
        due = released_at.replace(tzinfo=UTC).timestamp() + SCRUB_TIME

        def is_gone() -> bool:
            # The clock first: what is there afterwards was there then.
            now = time.time()
            if site.path(image_id).exists():
                return False
            assert now >= due - 0.1
            return True

        wait_for("scrubbing", is_gone)
        site.wait_gone(image_id)


# -- in plain rows, on each kind of database


@pytest.fixture
def rows(registry_url: str) -> Iterator[Rows]:
    rows = Rows(registry_url)
    yield rows
    rows.engine.dispose()


@pytest.fixture
def holds(registry_url: str) -> Iterator[Holds]:
    database = connect(registry_url)
    yield Holds(database)
    database.dispose()


@pytest.fixture
def config(registry_url: str, tmp_path: Path) -> Path:
    return write_config(tmp_path, registry_url)


def write_config(folder: Path, registry_url: str) -> Path:
    """Write a configuration for evscrub with only the registry."""
    text = f"glance_config_files = none\n[database]\nconnection = {registry_url}"
    return new_config(folder, text)


def a_location(image_id: str, store: str = "fast") -> tuple[str, str]:
    return store, f"file:///nowhere/{store}/{image_id}"


def pending(rows: Rows, *, ago: float = 0.0, **fields: object) -> str:
    """Add an image and delete it."""
    image_id = new_id()
    rows.add(a_location(image_id), image_id=image_id, **fields)  # type: ignore[arg-type] # passed on
    rows.delete(image_id, ago=ago)
    return image_id


def claimed(rows: Rows) -> str:
    image_id = pending(rows)
    rows.execute("UPDATE images SET status = 'deleted' WHERE id = :id", id=image_id)
    return image_id


def scrubbed(rows: Rows) -> str:
    image_id = claimed(rows)
    rows.execute("UPDATE image_locations SET status = 'deleted' WHERE image_id = :id", id=image_id)
    return image_id


def without_location(rows: Rows) -> str:
    image_id = pending(rows)
    rows.execute("DELETE FROM image_locations WHERE image_id = :id", id=image_id)
    return image_id


def test_restore_is_refused_with_a_reason(rows: Rows, config: Path) -> None:
    queued = rows.add(a_location(new_id()))
    rows.execute("UPDATE images SET status = 'queued' WHERE id = :id", id=queued)
    reasons = {
        queued: "it is not pending delete but queued",
        new_id(): "it is not in the registry",
        claimed(rows): "it is being scrubbed",
        scrubbed(rows): "it is already scrubbed",
        without_location(rows): "it has no location left whose data could come back",
    }
    before = [rows.read(f"SELECT * FROM {table} ORDER BY id") for table in ("images", "image_tags")]
    done = evscrub(config, "restore", *reasons)
    assert done.returncode == 1
    assert done.stdout == ""
    for image_id, reason in reasons.items():
        assert f"{image_id}: not restored: {reason}\n" in done.stderr
    after = [rows.read(f"SELECT * FROM {table} ORDER BY id") for table in ("images", "image_tags")]
    assert after == before


@pytest.mark.parametrize("kept", [str.lower, str.upper, str.title], ids=["lower", "upper", "mixed"])
@pytest.mark.parametrize(
    "given", [str.lower, str.upper, str.title], ids=["lower", "upper", "mixed"]
)
def test_id_is_accepted_in_upper_and_lower_case(
    rows: Rows, holds: Holds, kept: Callable[[str], str], given: Callable[[str], str]
) -> None:
    image_id = kept("abcdef01-" + new_id()[9:])
    rows.add(a_location(image_id), image_id=image_id)
    rows.delete(image_id)
    assert holds.find(f" {given(image_id)}") == image_id


def test_upper_case_ids_are_held_released_and_restored(rows: Rows, config: Path) -> None:
    image_id = pending(rows)
    for command, done in (("hold", "held"), ("release", "released"), ("restore", "restored")):
        asked = evscrub(config, command, image_id.upper())
        assert (asked.returncode, asked.stdout) == (0, f"{image_id}: {done}\n"), asked.stderr
    assert rows.status(image_id) == ("active", ["active"])


def test_invalid_id_is_refused(rows: Rows, config: Path) -> None:
    for image_id in (new_id().upper(), "", "*", "x" * 300, "é", "a\nb", "\udcff"):
        done = evscrub(config, "hold", image_id)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "not held: it is " in done.stderr


def test_exact_id_is_preferred_over_one_in_different_case(
    rows: Rows, holds: Holds, registry_url: str
) -> None:
    """On databases that distinguish them, which MySQL does not."""
    if registry_url.startswith("mysql"):
        return
    lower = "ab" + new_id()[2:]
    upper = lower.upper()
    rows.add(a_location(lower), image_id=lower)
    rows.add(a_location(upper), image_id=upper)
    assert (holds.find(lower), holds.find(upper)) == (lower, upper)
    with pytest.raises(RefusedError, match="several images"):
        holds.find(lower.title())


def test_destroyed_encryption_key_is_reported(rows: Rows, config: Path) -> None:
    key = {
        "cinder_encryption_key_id": "a-key",
        "cinder_encryption_key_deletion_policy": "on_image_deletion",
    }
    image_id, other = pending(rows, properties=key), pending(rows)
    said = accepted(config, "restore", image_id, other)
    assert f"{image_id}: but its encryption key a-key was destroyed" in said
    assert other not in said
    assert rows.status(image_id) == ("active", ["active"])


def test_restore_brings_back_only_rows_of_the_same_delete(rows: Rows, holds: Holds) -> None:
    image_id = new_id()
    rows.add(
        a_location(image_id, "fast"),
        a_location(image_id, "archive"),
        image_id=image_id,
        properties={"kept": "1", "dropped": "2"},
        tags=["kept", "dropped"],
        members=["kept", "dropped"],
    )
    for table, column in (
        ("image_properties", "name"),
        ("image_tags", "value"),
        ("image_members", "member"),
    ):
        rows.execute(
            f"UPDATE {table} SET deleted = :yes, deleted_at = :then"
            f" WHERE image_id = :id AND {column} = 'dropped'",
            yes=True,
            then=utc_now() - timedelta(hours=1),
            id=image_id,
        )
    rows.take_off(image_id, "archive", ago=LONG)
    rows.delete(image_id)
    for step in (holds.hold, holds.release, holds.hold, holds.restore):
        step(image_id)
    image = rows.image(image_id)
    assert (image["status"], bool(image["deleted"]), image["deleted_at"]) == ("active", False, None)
    for table in ("image_properties", "image_tags", "image_members"):
        assert [bool(row["deleted"]) for row in rows.rows(table, image_id)] == [False, True]
    fast, archive = rows.rows("image_locations", image_id)
    assert (fast["status"], bool(fast["deleted"]), fast["deleted_at"]) == ("active", False, None)
    assert (archive["status"], bool(archive["deleted"])) == ("pending_delete", True)


@pytest.mark.parametrize("steps", [(), ("hold",), ("hold", "release")])
def test_re_added_member_and_tag_come_back_once(
    rows: Rows, holds: Holds, steps: tuple[str, ...]
) -> None:
    """Re-added just before the DELETE; Glance cannot delete an image with a duplicate member."""
    image_id = new_id()
    rows.add(a_location(image_id), image_id=image_id, members=["bob", "bob"], tags=["a", "a"])
    for table in ("image_members", "image_tags"):
        first = rows.rows(table, image_id)[0]["id"]
        rows.execute(
            f"UPDATE {table} SET deleted = :yes, deleted_at = :then WHERE id = :id",
            yes=True,
            then=utc_now() - timedelta(seconds=3),
            id=first,
        )
    rows.delete(image_id)
    for step in (*steps, "restore"):
        getattr(holds, step)(image_id)
    for table in ("image_members", "image_tags"):
        assert [bool(row["deleted"]) for row in rows.rows(table, image_id)] == [True, False]
    rows.delete(image_id)
    assert rows.status(image_id) == ("pending_delete", ["pending_delete"])


def test_partly_scrubbed_image_comes_back_in_part(rows: Rows, holds: Holds) -> None:
    image_id = new_id()
    rows.add(a_location(image_id, "fast"), a_location(image_id, "archive"), image_id=image_id)
    rows.delete(image_id)
    gone = rows.rows("image_locations", image_id)[0]["id"]
    rows.execute("UPDATE image_locations SET status = 'deleted' WHERE id = :id", id=gone)
    holds.restore(image_id)
    assert rows.status(image_id) == ("active", ["deleted", "active"])


def test_interrupted_delete_can_be_restored_but_not_held(rows: Rows, holds: Holds) -> None:
    image_id = pending(rows)
    rows.execute(
        "UPDATE images SET deleted = :no, deleted_at = NULL WHERE id = :id", no=False, id=image_id
    )
    with pytest.raises(RefusedError, match="its DELETE did not complete"):
        holds.hold(image_id)
    holds.restore(image_id)
    assert rows.status(image_id) == ("active", ["active"])


def test_hold_clears_all_deletion_times_and_release_sets_them(
    rows: Rows, holds: Holds, config: Path
) -> None:
    """A purge takes no row without a deletion time; it compares each table's own time."""
    image_id = pending(rows, ago=5, properties={"a": "b"}, tags=["t"], members=["m"])
    tables = ("images", "image_locations", "image_properties", "image_tags", "image_members")
    accepted(config, "hold", image_id)
    for table in tables:
        assert [row["deleted_at"] for row in rows.rows(table, image_id)] == [None]
    assert rows.status(image_id) == ("pending_delete", ["pending_delete"])
    assert unchanged(config, "hold", image_id) == "it is held already"
    before = utc_now().replace(microsecond=0)
    accepted(config, "release", image_id)
    for table in tables:
        (row,) = rows.rows(table, image_id)
        assert row["deleted"]
        assert before <= as_time(row["deleted_at"]) <= utc_now() + timedelta(seconds=1)
    image_at, location_at = times(rows, image_id)
    assert image_at < location_at <= image_at + AFTER  # by which an agent knows a release
    assert unchanged(config, "release", image_id) == "it is not held"


def test_images_are_selected_in_bulk(rows: Rows, config: Path, tmp_path: Path) -> None:
    """By owner, store and file: what is counted, changed, logged and left alone."""
    log = tmp_path / "evscrub.log"
    with config.open("a") as file:
        file.write("[DEFAULT]\nenabled_backends = fast:file, slow:file\n")
    mine = [pending(rows, owner="me") for _ in range(3)]
    slow = new_id()
    rows.add(a_location(slow, "fast"), a_location(slow, "slow"), image_id=slow, owner="me")
    rows.delete(slow)
    others = pending(rows, owner="other")
    claimed_id = pending(rows, owner="me")
    rows.execute("UPDATE images SET status = 'deleted' WHERE id = :id", id=claimed_id)
    live = rows.add(a_location(new_id()), owner="me")

    def held() -> set[str]:
        found = rows.read("SELECT id FROM images WHERE deleted_at IS NULL AND status <> 'active'")
        return {str(row.id) for row in found}

    def lines(command: str, *arguments: str) -> tuple[list[str], list[str]]:
        done = evscrub(config, command, *arguments)
        assert done.returncode == 0, done.stderr
        return sorted(done.stdout.splitlines()), done.stderr.splitlines()

    done = evscrub(config, "hold", "--owner", "me")
    assert (done.returncode, "there is no terminal" in done.stderr) == (2, True)
    assert held() == set()

    printed, told = lines("hold", "--owner", "me", "--yes")
    assert printed == sorted(f"{image_id}: held" for image_id in [*mine, slow])
    assert told == [
        "evscrub: 4 images to hold: pending images of owner me that are not held",
        "evscrub: 4 held, 0 unchanged, 0 refused",
    ]
    assert held() == {*mine, slow}
    printed, told = lines("hold", "--owner", "me", "--yes")
    assert printed == []
    assert told[0].startswith("evscrub: 0 images to hold")

    printed, told = lines("release", "--owner", "me", "--store", "slow", "-y")
    assert printed == [f"{slow}: released"]
    assert told[0] == "evscrub: 1 image to release: held images of owner me in store slow"
    assert held() == set(mine)

    ids = tmp_path / "ids"
    ids.write_text(f"# from a ticket\n\n{mine[0].upper()}\n {slow} \n")
    printed, told = lines("release", "--file", str(ids), "--yes")
    assert printed == sorted([f"{mine[0]}: released", f"{slow}: it is not held"])
    assert told[-1] == "evscrub: 1 released, 1 unchanged, 0 refused"

    printed, _ = lines("restore", "--store", "fast", "--yes")
    assert printed == sorted(f"{image_id}: restored" for image_id in [*mine, slow, others])
    for image_id in (*mine, others):
        assert rows.status(image_id) == ("active", ["active"])
    assert rows.status(claimed_id) == ("deleted", ["pending_delete"])
    assert rows.status(live) == ("active", ["active"])
    none = evscrub(config, "restore", "--store", "nowhere", "--yes")
    told = none.stderr.splitlines()
    assert told[0] == "evscrub: no store nowhere is enabled here; enabled stores: fast, slow"
    assert none.returncode == 2
    said = "Image %s %s by %s on %s"
    expected = [
        *(said % (image_id, "held", *operator_log.who()) for image_id in [*mine, slow]),
        *(said % (image_id, "released", *operator_log.who()) for image_id in [slow, mine[0]]),
        *(said % (image_id, "restored", *operator_log.who()) for image_id in [*mine, slow, others]),
    ]
    logged = [line.partition(" [-] ")[2] for line in log.read_text().splitlines()]
    assert sorted(logged) == sorted(expected)


def test_images_are_held_though_nobody_reads_what_is_said(
    new_registry: RegistryFactory, tmp_path: Path
) -> None:
    url = new_registry("sqlite", "unread")
    rows = Rows(url)
    images = [pending(rows, owner="me") for _ in range(3)]
    command = [sys.executable, "-m", "evscrub", "hold", "--owner", "me", "--yes"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*command, "--config-file", write_config(tmp_path, url)],
        stdout=writer,
        stderr=writer,
        check=False,
    )
    os.close(writer)
    held = rows.read("SELECT id FROM images WHERE deleted_at IS NULL")
    rows.engine.dispose()
    assert done.returncode == 0
    assert {str(row.id) for row in held} == set(images)


def test_closed_standard_input_is_not_taken_for_an_empty_one(
    new_registry: RegistryFactory, tmp_path: Path
) -> None:
    config = write_config(tmp_path, new_registry("sqlite", "closed"))
    command = f"{sys.executable} -m evscrub hold --file - --yes --config-file {config} <&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot read -: it is closed" in done.stderr


def test_images_whose_rows_name_no_store_are_held_with_each_that_may_have_them(
    rows: Rows, config: Path
) -> None:
    with config.open("a") as file:
        file.write("[DEFAULT]\nenabled_backends = fast:file, slow:file, objects:s3\n")
    fast, slow, unnamed = (new_id() for _ in range(3))
    for image_id, store in ((fast, "fast"), (slow, "slow"), (unnamed, "fast")):
        rows.add(a_location(image_id, store), image_id=image_id)
        rows.delete(image_id)
    rows.execute("UPDATE image_locations SET meta_data = '{}' WHERE image_id = :id", id=unnamed)

    def printed(command: str, store: str) -> list[str]:
        done = evscrub(config, command, "--store", store, "--yes")
        assert done.returncode == 0, done.stderr
        return sorted(done.stdout.splitlines())

    assert printed("hold", "objects") == []
    assert printed("hold", "slow") == sorted(f"{image_id}: held" for image_id in (slow, unnamed))
    assert printed("release", "slow") == [f"{slow}: released"]
    assert printed("release", "file") == [f"{unnamed}: released"]  # as evscrub list calls it
    assert printed("hold", "file") == [f"{unnamed}: held"]
    assert printed("hold", "fast") == [f"{fast}: held"]
    assert printed("restore", "fast") == [f"{fast}: restored"]


def test_images_of_a_store_that_is_not_enabled_any_more(rows: Rows, config: Path) -> None:
    """Repeating a command is no error, though nothing is selected then."""
    with config.open("a") as file:
        file.write("[DEFAULT]\nenabled_backends = fast:file\n")
    image_id = rows.add(a_location(new_id(), "old"), owner="me")
    rows.delete(image_id)
    for command, printed in (("hold", image_id), ("hold", ""), ("release", image_id)):
        done = evscrub(config, command, "--store", "old", "--yes")
        assert (done.returncode, printed in done.stdout) == (0, True)
        assert "no store old is enabled here" in done.stderr
    assert evscrub(config, "release", "--store", "old", "--yes").returncode == 0
    assert evscrub(config, "release", "--store", "older", "--yes").returncode == 2
    assert commands.run("list", "--config-file", config, "--store", "old").returncode == 0
    assert commands.run("list", "--config-file", config, "--store", "old", "--held").returncode == 0


def test_unreadable_image_is_refused_and_others_are_not(
    new_registry: RegistryFactory, tmp_path: Path
) -> None:
    """On SQLite, which alone takes such a date."""
    url = new_registry("sqlite", "unreadable")
    rows, config = Rows(url), write_config(tmp_path, url)
    first, broken, last = (pending(rows, owner="me") for _ in range(3))
    rows.execute("UPDATE images SET updated_at = 'soon' WHERE id = :id", id=broken)
    done = evscrub(config, "hold", first, broken, last)
    assert done.returncode == 1
    assert f"{broken}: not held: its rows in images and image_locations cannot be" in done.stderr
    assert done.stdout.splitlines() == [f"{first}: held", f"{last}: held"]
    done = evscrub(config, "release", "--owner", "me", "--yes")
    assert done.stdout.count("released") == 2
    done = evscrub(config, "hold", "--owner", "me", "--yes")
    assert (done.returncode, done.stdout.count(": held")) == (1, 2)
    assert "evscrub: 2 held, 0 unchanged, 1 refused" in done.stderr
    rows.engine.dispose()


def as_time(value: object) -> datetime:
    """Return a time in a form common to all kinds of database."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
