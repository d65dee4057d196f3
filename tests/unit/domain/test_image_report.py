# SPDX-License-Identifier: Apache-2.0
"""``evscrub list``: the state of an image in words, and the OpenStack client's formats."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import pytest

from evscrub.domain import image_report
from evscrub.domain.decisions import ImageRow, LocationRow, Policy
from evscrub.domain.image_report import AgentReports, ImageReport, Listed, ReportedTrouble
from evscrub.stores.names import StoreNames

ID = "6f945939-449e-442e-8aea-d5be45ab20d1"
REASON = (
    "permission denied: user nobody (uid 65534) may not delete in /var/lib/glance/images: Operation"
    " not permitted (EPERM): look for immutable files ('lsattr') (tried 9 times)"
)
NOW = datetime(2026, 5, 1, 12, 0, 0)
HOUR = timedelta(hours=1)
POLICY = Policy(scrub_time=HOUR, claim_timeout=timedelta(minutes=2))


def line(
    row: ImageRow,
    locations: Sequence[LocationRow],
    troubles: Mapping[str, ReportedTrouble] | None = None,
    stores: Mapping[str, str] | None = None,
    children_deleted_at: datetime | None = None,
) -> ImageReport | None:
    seen = Listed(row, "name", tuple(locations), NOW, children_deleted_at)
    names = StoreNames({"fast": "file", "slow": "file", "swift": "swift"})
    return image_report.describe(seen, POLICY, AgentReports(troubles or {}, stores or {}), names.of)


def image(status: str = "pending_delete", deleted_at: datetime | None = NOW - 2 * HOUR) -> ImageRow:
    return ImageRow("id", "owner", 10, status, status in {"pending_delete", "deleted"}, deleted_at)


def location(**fields: object) -> LocationRow:
    values: dict[str, object] = {
        "id": 1,
        "value": "swift+https://user:key@host/container/object",
        "store": "fast",
        "status": "pending_delete",
        "deleted": True,
        "deleted_at": NOW - 2 * HOUR,
        "updated_at": NOW - 2 * HOUR,
    }
    return LocationRow(**(values | fields))  # type: ignore[arg-type] # a stand-in


def state(found: ImageReport | None) -> str:
    assert found is not None
    return found.state


class TestStates:
    def test_deleted_again_after_glance_scrubber_restored_it(self) -> None:
        """It has no location for Glance then, so its status is deleted at once."""
        found = line(image("deleted", NOW - HOUR / 2), [location()])
        assert state(found) == "waiting"
        assert found is not None
        assert found.due_in == HOUR / 2

    def test_due(self) -> None:
        found = line(image(), [location()])
        assert found is not None
        assert (found.state, found.reason) == ("due", "")
        assert (found.due_at, found.due_in) == (NOW - HOUR, -HOUR)
        assert found.stores == ("fast",)

    def test_waiting(self) -> None:
        found = line(image(deleted_at=NOW - HOUR / 4), [location()])
        assert found is not None
        assert (found.state, found.due_at) == ("waiting", NOW + HOUR * 3 / 4)

    def test_held(self) -> None:
        held = location(deleted_at=None)
        found = line(image(deleted_at=None), [held])
        assert found is not None
        assert (found.state, found.due_at, found.deleted_at) == ("held", None, None)

    def test_held_image_shows_deletion_time_of_its_locations(self) -> None:
        last = location(id=2, deleted_at=NOW - HOUR)
        found = line(image(deleted_at=None), [location(), last])
        assert found is not None
        assert (found.state, found.deleted_at) == ("held", NOW - HOUR)

    def test_rows_removed_before_a_hold_give_no_deletion_time(self) -> None:
        found = line(image(deleted_at=None), [location(), location(id=2, deleted_at=None)])
        assert found is not None
        assert (found.state, found.deleted_at) == ("held", None)

    @pytest.mark.parametrize(
        ("changed", "child", "wanted"),
        [
            (NOW - HOUR, NOW - HOUR, NOW - HOUR),
            (NOW - HOUR, NOW - HOUR - timedelta(seconds=5), NOW - HOUR - timedelta(seconds=5)),
            (NOW, NOW - HOUR, None),  # evscrub hold changed the image; the tag went before
            (NOW - HOUR, None, None),
            (None, NOW - HOUR, None),
        ],
    )
    def test_held_image_shows_deletion_time_of_its_children(
        self, changed: datetime | None, child: datetime | None, wanted: datetime | None
    ) -> None:
        row = image(deleted_at=None)._replace(updated_at=changed)
        found = line(row, [location(deleted_at=None)], children_deleted_at=child)
        assert found is not None
        assert (found.state, found.deleted_at) == ("held", wanted)

    def test_no_location_is_left(self) -> None:
        found = line(image(), [location(status="deleted")])
        assert found is not None
        assert (found.state, found.reason) == ("due", "no location left, will only be finished")

    @pytest.mark.parametrize("rows", [[location()], [location(store="slow"), location(id=2)]])
    def test_due_image_shows_that_its_store_is_paused(self, rows: list[LocationRow]) -> None:
        paused = {"fast": "store fast is paused: its directory is missing"}
        found = line(image(), rows, stores=paused)
        assert found is not None
        assert (found.state, found.reason) == ("due", paused["fast"])
        elsewhere = line(image(), rows, stores={"other": "store other is paused"})
        assert elsewhere is not None
        assert elsewhere.reason == ""

    def test_a_paused_store_is_told_beside_what_else_is_known(self) -> None:
        known = {"id": ReportedTrouble("retrying", "timeout")}
        paused = {"fast": "store fast is paused"}
        found = line(image(), [location()], known, paused)
        assert found is not None
        assert found.reason == "timeout; store fast is paused"
        parked = line(image(), [location()], {"id": ReportedTrouble("parked", "why")}, paused)
        assert parked is not None
        assert parked.reason == "why"

    def test_paused_store_is_not_shown_for_images_not_due(self) -> None:
        paused = {"fast": "store fast is paused"}
        found = line(image(deleted_at=NOW), [location()], stores=paused)
        assert found is not None
        assert (found.state, found.reason) == ("waiting", "")

    def test_claimed_and_expired(self) -> None:
        fresh = location(updated_at=NOW)
        claimed = line(image("deleted"), [fresh])
        assert claimed is not None
        assert (claimed.state, claimed.due_at) == ("claimed", NOW - HOUR)
        stale = line(image("deleted"), [location()])
        assert state(stale) == "due"
        assert stale is not None
        assert "will be taken over" in stale.reason

    def test_damaged(self) -> None:
        found = line(image("active", None), [location()])
        assert found is not None
        assert found.state == "damaged"
        assert found.reason

    def test_orphan(self) -> None:
        live = location(id=2, status="active", deleted=False, deleted_at=None)
        removed = location(store="slow")
        found = line(image("active", None), [live, removed])
        assert found is not None
        assert (found.state, found.stores) == ("due", ("slow",))
        assert found.deleted_at == removed.deleted_at
        assert found.due_at == NOW - HOUR + POLICY.orphan_grace

    @pytest.mark.parametrize(("told", "wanted"), [("parked", "parked"), ("in use", "in use")])
    def test_what_agents_know(self, told: str, wanted: str) -> None:
        known = {"id": ReportedTrouble(told, "why")}
        found = line(image(), [location()], known)
        assert found is not None
        assert (found.state, found.reason) == (wanted, "why")

    def test_what_agents_only_retry_is_due(self) -> None:
        found = line(image(), [location()], {"id": ReportedTrouble("retrying", "why")})
        assert found is not None
        assert (found.state, found.reason) == ("due", "why")

    def test_what_agents_knew_of_an_image_that_is_not_due_says_nothing(self) -> None:
        known = {"id": ReportedTrouble("parked", "why")}
        held = line(image(deleted_at=None), [location(deleted_at=None)], known)
        assert state(held) == "held"

    def test_image_without_anything_to_scrub_is_not_listed(self) -> None:
        live = location(status="active", deleted=False)
        assert line(image("active", None), [live]) is None
        gone = location(status="deleted")
        assert line(image("deleted"), [gone]) is None

    @pytest.mark.parametrize(
        ("value", "wanted"),
        [("swift+https://user:key@host/c/o", "swift"), ("AAAA", "?"), ("file:///x", "file")],
    )
    def test_only_the_store_of_a_url_is_shown(self, value: str, wanted: str) -> None:
        found = line(image(), [location(store=None, value=value)])
        assert found is not None
        assert found.stores == (wanted,)
