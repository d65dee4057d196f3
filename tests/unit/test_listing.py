# SPDX-License-Identifier: Apache-2.0
"""``evscrub list``: the state of an image in words, and the OpenStack client's formats."""

import argparse
import gc
import io
import json
import tracemalloc
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import yaml
from cliff.formatters.json_format import JSONFormatter

from evscrub import listing_output
from evscrub.listing import Line, Trouble, line
from evscrub.rules import ImageRow, LocationRow, Policy

NOW = datetime(2026, 5, 1, 12, 0, 0)
HOUR = timedelta(hours=1)
POLICY = Policy(scrub_time=HOUR, claim_timeout=timedelta(minutes=2))


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


def state(found: Line | None) -> str:
    assert found is not None
    return found.state


class TestStates:
    def test_due(self) -> None:
        found = line(image(), "name", [location()], NOW, POLICY, {})
        assert found is not None
        assert (found.state, found.reason) == ("due", "")
        assert (found.due_at, found.due_in) == (NOW - HOUR, -HOUR)
        assert found.stores == ("fast",)

    def test_waiting(self) -> None:
        found = line(image(deleted_at=NOW - HOUR / 4), None, [location()], NOW, POLICY, {})
        assert found is not None
        assert (found.state, found.due_at) == ("waiting", NOW + HOUR * 3 / 4)

    def test_held(self) -> None:
        held = location(deleted_at=None)
        found = line(image(deleted_at=None), None, [held], NOW, POLICY, {})
        assert found is not None
        assert (found.state, found.due_at, found.deleted_at) == ("held", None, None)

    def test_claimed_and_left_by_who_claimed_it(self) -> None:
        fresh = location(updated_at=NOW)
        claimed = line(image("deleted"), None, [fresh], NOW, POLICY, {})
        assert claimed is not None
        assert (claimed.state, claimed.due_at) == ("claimed", NOW - HOUR)
        stale = line(image("deleted"), None, [location()], NOW, POLICY, {})
        assert state(stale) == "due"
        assert stale is not None
        assert "to be taken over" in stale.reason

    def test_damaged(self) -> None:
        found = line(image("active", None), None, [location()], NOW, POLICY, {})
        assert found is not None
        assert found.state == "damaged"
        assert found.reason

    def test_a_location_taken_off_a_live_image(self) -> None:
        live = location(id=2, status="active", deleted=False, deleted_at=None)
        removed = location(store="slow")
        found = line(image("active", None), None, [live, removed], NOW, POLICY, {})
        assert found is not None
        assert (found.state, found.stores) == ("due", ("slow",))
        assert found.deleted_at == removed.deleted_at
        assert found.due_at == NOW - HOUR + POLICY.orphan_grace

    @pytest.mark.parametrize(("told", "wanted"), [("parked", "parked"), ("in use", "in use")])
    def test_what_agents_know(self, told: str, wanted: str) -> None:
        known = {"id": Trouble(told, "why")}
        found = line(image(), None, [location()], NOW, POLICY, known)
        assert found is not None
        assert (found.state, found.reason) == (wanted, "why")

    def test_what_agents_only_retry_is_due(self) -> None:
        found = line(image(), None, [location()], NOW, POLICY, {"id": Trouble("retrying", "why")})
        assert found is not None
        assert (found.state, found.reason) == ("due", "why")

    def test_what_agents_knew_of_an_image_that_is_not_due_says_nothing(self) -> None:
        known = {"id": Trouble("parked", "why")}
        held = line(image(deleted_at=None), None, [location(deleted_at=None)], NOW, POLICY, known)
        assert state(held) == "held"

    def test_nothing_to_scrub_is_not_listed(self) -> None:
        live = location(status="active", deleted=False)
        assert line(image("active", None), None, [live], NOW, POLICY, {}) is None
        gone = location(status="deleted")
        assert line(image("deleted"), None, [gone], NOW, POLICY, {}) is None

    @pytest.mark.parametrize(
        ("value", "wanted"),
        [("swift+https://user:key@host/c/o", "swift+https"), ("AAAA", "?"), ("file:///x", "file")],
    )
    def test_of_a_url_only_the_scheme_is_shown(self, value: str, wanted: str) -> None:
        found = line(image(), None, [location(store=None, value=value)], NOW, POLICY, {})
        assert found is not None
        assert found.stores == (wanted,)


def lines(count: int) -> Iterator[Line]:
    for number in range(count):
        due = timedelta(seconds=number)
        yield Line(
            f"id{number}", "a\x1b[2Jb", None, 3 << 30, ("x", "y"), NOW, NOW + due, due, "due", ""
        )


def write(count: int, *arguments: str, stdout: io.TextIOBase | None = None) -> str:
    parser = argparse.ArgumentParser()
    listing_output.add_arguments(parser)
    out = io.StringIO() if stdout is None else stdout
    listing_output.write(lines(count), out, parser.parse_args(arguments))  # type: ignore[arg-type] # a stand-in
    return out.getvalue() if isinstance(out, io.StringIO) else ""


class TestFormats:
    @pytest.mark.parametrize("count", [0, 1, 2, listing_output.BATCH_ROWS + 1])
    @pytest.mark.parametrize("how", ["json", "yaml"])
    def test_what_is_structured_reads_as_one_list(self, how: str, count: int) -> None:
        text = write(count, "-f", how, "-c", "ID", "-c", "Stores")
        read = json.loads(text) if how == "json" else yaml.load(text, yaml.CSafeLoader)
        assert read == [{"ID": f"id{number}", "Stores": ["x", "y"]} for number in range(count)]

    @pytest.mark.parametrize("count", [0, 1, 3])
    @pytest.mark.parametrize("indent", [[], ["--noindent"]])
    def test_json_is_written_as_cliff_writes_it(self, count: int, indent: list[str]) -> None:
        parser = argparse.ArgumentParser()
        listing_output.add_arguments(parser)
        rows = [("é", number, [1, {}], None) for number in range(count)]
        wrote = []
        for formatter in (JSONFormatter(), listing_output.StreamedJSONFormatter()):
            out = io.StringIO()
            formatter.emit_list(["a", "b", "c", "d"], iter(rows), out, parser.parse_args(indent))
            wrote.append(out.getvalue())
        assert wrote[0] == wrote[1]

    def test_csv_and_values_are_plain(self) -> None:
        assert write(2, "-f", "csv", "-c", "id", "-c", "size", "-c", "due_in", "-c", "Stores") == (
            '"ID","Size","Stores","Due In"\n"id0",3221225472,"x,y",0\n"id1",3221225472,"x,y",1\n'
        )
        assert write(1, "-f", "value", "-c", "Deleted At", "-c", "State") == (
            "2026-05-01T12:00:00Z due\n"
        )

    def test_a_table_is_for_people(self) -> None:
        text = write(2)
        assert "3.0 GiB" in text
        assert text.count("| ID") == 1
        assert text.count("| id") == 2

    def test_a_long_table_begins_anew(self) -> None:
        assert write(listing_output.BATCH_ROWS + 1, "-c", "ID").count("| ID") == 2

    @pytest.mark.parametrize("how", listing_output.FORMATTERS)
    def test_no_name_steers_the_terminal(self, how: str) -> None:
        text = write(1, "-f", how)
        assert "\x1b" not in text
        assert "2Jb" in text

    def test_a_column_that_is_not_there_is_told(self) -> None:
        with pytest.raises(ValueError, match="no column colour: there are ID, Name"):
            write(1, "-c", "colour")

    @pytest.mark.parametrize("how", listing_output.FORMATTERS)
    def test_many_rows_take_no_more_memory_than_few(self, how: str) -> None:
        class Nowhere(io.TextIOBase):
            def write(self, text: str) -> int:
                if len(text) > 10_000:
                    gc.collect()  # a table is full of cycles
                return len(text)

        def peak(count: int) -> int:
            tracemalloc.start()
            try:
                write(count, "-f", how, "-c", "ID", "-c", "Due In", stdout=Nowhere())
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        peak(10)  # what is imported stays
        batch = listing_output.BATCH_ROWS
        # Now and then a thread that another test left takes memory meanwhile.
        assert any(peak(5 * batch) < 1.2 * peak(2 * batch) + 100_000 for _ in range(3))
