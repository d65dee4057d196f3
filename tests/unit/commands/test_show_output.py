# SPDX-License-Identifier: Apache-2.0
"""``evscrub show``: its fields in the OpenStack client's formats."""

import argparse
import io
import json
import shlex
import subprocess
from datetime import datetime, timedelta
from typing import Any

import pytest
import yaml

from evscrub.commands import show_output
from evscrub.domain import image_report
from evscrub.domain.decisions import ImageRow, LocationRow, Policy
from evscrub.domain.image_report import AgentReports, Detail, Listed, Restorable
from evscrub.domain.refusals import UsageError
from evscrub.stores.names import StoreNames

ID = "6f945939-449e-442e-8aea-d5be45ab20d1"
SECRET = "a-secret-key"
NOW = datetime(2026, 5, 1, 12, 0, 0)
HOUR = timedelta(hours=1)
POLICY = Policy(scrub_time=HOUR, claim_timeout=timedelta(minutes=2))
NAMES = StoreNames({"fast": "file", "slow": "file", "swift": "swift"})
#: A user's name or value that a shell must not run, and a terminal must not obey.
HOSTILE = "a \"b\" 'c' \\ $(echo run) `echo run` ${HOME} \x1b[2J"


def location(number: int, store: str, updated_at: datetime = NOW - 2 * HOUR) -> LocationRow:
    url = f"swift+https://user:{SECRET}@host/container/object"
    deleted_at = NOW - 2 * HOUR
    return LocationRow(number, url, store, "pending_delete", True, deleted_at, updated_at)


def detail(status: str = "pending_delete", restorable: Restorable | None = None) -> Detail:
    locations = (location(1, "slow"), location(2, "fast"))
    image = ImageRow(ID, "owner", 3 << 30, status, True, NOW - 2 * HOUR, NOW - 2 * HOUR)
    if restorable is None:
        restorable = Restorable(
            status="active",
            locations=locations[:1],
            properties=(("note", HOSTILE), ("url", f"s3://key:{SECRET}@host/b/k"), ("none", None)),
            tags=("blue", "red"),
            members=("bob",),
            losses=("its encryption key was destroyed",),
        )
    return Detail(Listed(image, HOSTILE, locations, NOW), NOW - 9 * HOUR, restorable)


def write(shown: Detail, *arguments: str) -> str:
    parser = argparse.ArgumentParser()
    show_output.add_arguments(parser)
    out = io.StringIO()
    report = image_report.describe_any(shown.seen, POLICY, AgentReports(), NAMES.of)
    show_output.write(shown, report, POLICY, NAMES, out, parser.parse_args(arguments))
    return out.getvalue()


def test_structured_formats_have_all_that_is_known() -> None:
    read: dict[str, Any] = json.loads(write(detail(), "-f", "json"))
    assert read == yaml.safe_load(write(detail(), "-f", "yaml"))
    assert read["Locations"] == [
        {
            "Store": store,
            "Status": "pending_delete",
            "Deleted At": "2026-05-01T10:00:00Z",
            "Restored": restored,
        }
        for store, restored in (("fast", False), ("slow", True))
    ]
    assert {name: read[name] for name in ("Restorable", "Restored Stores", "Restored Tags")} == {
        "Restorable": True,
        "Restored Stores": ["slow"],
        "Restored Tags": ["blue", "red"],
    }
    assert read["Restored Properties"] == {
        "note": HOSTILE,
        "url": "s3://***@host/b/k",
        "none": None,
    }
    assert (read["State"], read["Due In"], read["Size"]) == ("due", -3600, 3 << 30)
    assert read["Claim Expires At"] is None


@pytest.mark.parametrize("how", show_output.FORMATTERS)
def test_no_format_shows_a_url(how: str) -> None:
    text = write(detail(), "-f", how)
    assert SECRET not in text
    assert "object" not in text


@pytest.mark.parametrize("how", ["table", "value", "shell"])
def test_no_value_steers_the_terminal(how: str) -> None:
    assert "\x1b" not in write(detail(), "-f", how)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_shell_evaluates_values_without_running_them(shell: str) -> None:
    text = write(detail(), "-f", "shell", "--prefix", "image_")
    script = f'{text}\nprintf "%s" "$image_name"'
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == HOSTILE.replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    assert 'image_claim_expires_at=""\n' in text
    (assigned,) = shlex.split(next(line for line in text.splitlines() if "locations=" in line))
    assert len(json.loads(assigned.partition("=")[2])) == 2


def test_a_table_never_wraps_the_id() -> None:
    text = write(detail(), "--max-width", "20")
    assert f" {ID} |" in text
    lines = write(detail(), "--max-width", "70").splitlines()
    assert max(map(len, lines)) <= 70
    assert any("Restorable" in line and " yes " in line for line in lines)


def test_fields_are_selected_as_columns_are() -> None:
    assert write(detail(), "-f", "value", "-c", "due_at", "-c", "ID") == (
        f"{ID}\n2026-05-01T11:00:00Z\n"
    )
    with pytest.raises(UsageError, match="no column colour: there are ID, Name"):
        write(detail(), "-c", "colour")


def test_a_claimed_image_shows_when_its_claim_expires_and_why_nothing_comes_back() -> None:
    refused = Restorable(refusal="it is being scrubbed")
    shown = detail("deleted", refused)
    claimed = Detail(
        Listed(shown.seen.image, None, (location(1, "fast", updated_at=NOW),), NOW), None, refused
    )
    read = json.loads(write(claimed, "-f", "json"))
    assert (read["State"], read["Claim Expires At"]) == ("claimed", "2026-05-01T12:02:00Z")
    assert (read["Restorable"], read["Restore Refused"]) == (False, "it is being scrubbed")
    assert read["Restored Properties"] == {}


@pytest.mark.parametrize(("status", "state"), [("active", "live"), ("deleted", "scrubbed")])
def test_an_image_with_nothing_to_scrub_is_shown_too(status: str, state: str) -> None:
    image = ImageRow(ID, "owner", 1, status, status == "deleted", None)
    row = location(1, "fast")._replace(status="active" if state == "live" else "deleted")
    row = row._replace(deleted=state != "live")
    shown = Detail(Listed(image, "name", (row,), NOW), None, Restorable(refusal="no"))
    read = json.loads(write(shown, "-f", "json"))
    assert (read["State"], read["Reason"]) == (state, "nothing of it awaits scrubbing")
    assert [one["Store"] for one in read["Locations"]] == ["fast"]


def test_what_a_failed_import_left_is_explained() -> None:
    image = ImageRow(ID, "owner", 1, "importing", False, None)
    shown = Detail(Listed(image, "name", (location(1, "fast"),), NOW), None, Restorable())
    read = json.loads(write(shown, "-f", "json"))
    reason = "left by a failed import, until its image is active or deleted"
    assert (read["State"], read["Reason"], read["Due At"]) == ("waiting", reason, None)
