# SPDX-License-Identifier: Apache-2.0
"""``evscrub show`` on a registry of each kind: what it says of a restore is what a restore does."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from evscrub.domain.hold_rules import RefusedError
from evscrub.registry.holds import Holds
from tests.chaos.rows import Rows, connect, new_id, utc_now
from tests.functional import commands
from tests.functional.agents import wait_for
from tests.functional.conftest import RegistryFactory
from tests.functional.test_list import HOUR, Site

SECRET = "a-secret-key"
CHILDREN = ("image_properties", "image_tags", "image_members")


def run(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = commands.run("show", "--config-file", site.agent.config_path, *arguments)
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done


def show(site: Site, image_id: str) -> dict[str, Any]:
    done = run(site, "-f", "json", image_id)
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def an_image(rows: Rows) -> str:
    """Add an image of two locations and of whose children some were removed long ago."""
    image_id = new_id()
    locations = [(store, f"swift+https://user:{SECRET}@host/{store}/o") for store in ("slow", "b")]
    rows.add(
        *locations,
        image_id=image_id,
        properties={"hw_disk_bus": "scsi", "dropped": "2", "url": f"s3://key:{SECRET}@host/b/k"},
        tags=["blue", "dropped"],
        members=["bob", "dropped"],
    )
    for table, column in zip(CHILDREN, ("name", "value", "member"), strict=True):
        rows.execute(
            f"UPDATE {table} SET deleted = :yes, deleted_at = :then"
            f" WHERE image_id = :id AND {column} = 'dropped'",
            yes=True,
            then=utc_now() - timedelta(hours=1),
            id=image_id,
        )
    return image_id


def test_a_restore_brings_back_what_is_shown(tmp_path: Path, registry_url: str) -> None:
    site, rows = Site(tmp_path, registry_url), Rows(registry_url)
    image_id = an_image(rows)
    live = show(site, image_id)
    assert (live["State"], live["Restorable"]) == ("live", False)
    assert live["Restore Refused"] == "it is not deleted, it is active"
    for held in (False, True):
        check_restore(site, rows, image_id, held=held)


def check_restore(site: Site, rows: Rows, image_id: str, *, held: bool) -> None:
    holds = Holds(connect(rows.engine.url.render_as_string(hide_password=False)))
    rows.delete(image_id)
    if held:
        holds.hold(image_id)
    before = {name: rows.rows(name, image_id) for name in ("image_locations", *CHILDREN)}
    shown = show(site, image_id.upper())
    assert shown["ID"] == image_id
    assert shown["State"] == ("held" if held else "waiting")
    assert (shown["Due At"] is None) == held
    assert [(one["Store"], one["Restored"]) for one in shown["Locations"]] == [
        ("b", True),
        ("slow", True),
    ]
    assert (shown["Restorable"], shown["Restored Status"]) == (True, "active")
    assert before == {name: rows.rows(name, image_id) for name in before}
    holds.restore(image_id)

    def restored(table: str, column: str) -> list[object]:
        return [row[column] for row in rows.rows(table, image_id) if not row["deleted"]]

    assert list(shown["Restored Properties"]) == restored("image_properties", "name")
    assert shown["Restored Properties"]["hw_disk_bus"] == "scsi"
    assert shown["Restored Properties"]["url"] == "s3://***@host/b/k"
    assert shown["Restored Tags"] == restored("image_tags", "value") == ["blue"]
    assert shown["Restored Members"] == restored("image_members", "member") == ["bob"]
    assert set(shown["Restored Stores"]) == {"slow", "b"}


def test_what_cannot_be_restored_says_why(tmp_path: Path, registry_url: str) -> None:
    site, holds = Site(tmp_path, registry_url), Holds(connect(registry_url))
    claimed = site.seed.add(deleted_ago=2 * HOUR, status="deleted")
    site.seed.write()
    # A lease by the database's clock would need its own SQL; that of the agent's test is enough.
    shown = show(site, claimed)
    with pytest.raises(RefusedError) as refused:
        holds.restore(claimed)
    assert shown["Restore Refused"] == str(refused.value) == "it is being scrubbed"
    assert shown["State"] in {"claimed", "due"}
    assert not shown["Restored Stores"]
    Rows(registry_url).execute("UPDATE image_locations SET status = 'deleted'")
    scrubbed = show(site, claimed)
    assert (scrubbed["State"], scrubbed["Restore Refused"]) == (
        "scrubbed",
        "it is already scrubbed",
    )
    unknown = run(site, new_id())
    assert unknown.returncode == 1
    assert "it is not in the registry" in unknown.stderr
    assert unknown.stdout == ""
    assert [run(site, *wrong).returncode for wrong in ([], [claimed, "-c", "x"], ["é"])] == [
        2,
        2,
        1,
    ]


def test_an_agent_is_asked_about_a_due_image(tmp_path: Path, new_registry: RegistryFactory) -> None:
    site = Site(tmp_path, new_registry("sqlite", "shown"))
    parked = site.seed.add(deleted_ago=2 * HOUR, store="nowhere")
    site.seed.write()
    done = run(site, parked, "-f", "value", "-c", "State")
    assert done.stdout == "due\n"
    assert "no agent answers" in done.stderr
    with site.agent:
        wait_for("parking", lambda: show(site, parked)["State"] == "parked")
        assert "enabled_backends" in show(site, parked)["Reason"]
