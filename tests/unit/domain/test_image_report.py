# SPDX-License-Identifier: Apache-2.0
"""``evscrub list``: the state of an image in words, and the OpenStack client's formats."""

import argparse
import csv
import gc
import io
import json
import os
import sys
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import wcwidth
import yaml
from cliff.formatters.json_format import JSONFormatter
from hypothesis import given
from hypothesis import strategies as st

from evscrub.commands import list_output
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


def lines(count: int) -> Iterator[ImageReport]:
    for number in range(count):
        due = timedelta(seconds=number)
        yield ImageReport(
            f"id{number}", "a\x1b[2Jb", None, 3 << 30, ("x", "y"), NOW, NOW + due, due, "due", ""
        )


def terminal_width(text: str) -> int:
    return int(wcwidth.wcswidth(text))


def write(count: int, *arguments: str, stdout: io.TextIOBase | None = None) -> str:
    return write_lines(lines(count), *arguments, stdout=stdout)


def write_lines(
    written: Iterable[ImageReport], *arguments: str, stdout: io.TextIOBase | None = None
) -> str:
    parser = argparse.ArgumentParser()
    list_output.add_arguments(parser)
    out = io.StringIO() if stdout is None else stdout
    list_output.write(written, out, parser.parse_args(arguments))  # type: ignore[arg-type] # a stand-in
    return out.getvalue() if isinstance(out, io.StringIO) else ""


class TestFormats:
    @pytest.mark.parametrize("count", [0, 1, 2, list_output.BATCH_ROWS + 1])
    @pytest.mark.parametrize("how", ["json", "yaml"])
    def test_structured_formats_are_one_list(self, how: str, count: int) -> None:
        text = write(count, "-f", how, "-c", "ID", "-c", "Stores")
        read = json.loads(text) if how == "json" else yaml.load(text, yaml.CSafeLoader)
        assert read == [{"ID": f"id{number}", "Stores": ["x", "y"]} for number in range(count)]

    @pytest.mark.parametrize("count", [0, 1, 3])
    @pytest.mark.parametrize("indent", [[], ["--noindent"]])
    def test_json_is_written_as_cliff_writes_it(self, count: int, indent: list[str]) -> None:
        parser = argparse.ArgumentParser()
        list_output.add_arguments(parser)
        rows = [("é", number, [1, {}], None) for number in range(count)]
        wrote = []
        for formatter in (JSONFormatter(), list_output.StreamedJSONFormatter()):
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

    @pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t=", "\r="])
    def test_no_name_is_a_formula(self, begin: str) -> None:
        (line,) = lines(1)
        name = f'{begin}cmd|" /C calc"!A0'
        line = replace(line, name=name, owner=name, stores=(name,), reason=name)
        columns = ("-c", "Name", "-c", "Owner", "-c", "Stores", "-c", "Reason")
        (_, row) = csv.reader(io.StringIO(write_lines([line], "-f", "csv", *columns)))
        assert [cell[:1] for cell in row] == ["'"] * 4
        assert name.lstrip() in row[0]
        assert json.loads(write_lines([line], "-f", "json", *columns))[0]["Name"] == name

    @pytest.mark.parametrize(
        ("due_in", "shown"),
        [(0, "0 s"), (-0.4, "0 s"), (7500, "2 h 5 min"), (-3600, "1 h ago"), (90_000, "1 day 1 h")],
    )
    def test_a_table_has_durations_in_words(self, due_in: float, shown: str) -> None:
        one = replace(next(lines(1)), due_in=timedelta(seconds=due_in))
        cells = write_lines([one], "-c", "Due In").split("|")
        assert shown in map(str.strip, cells)

    def test_a_table_is_for_people(self) -> None:
        text = write(2)
        assert "3.0 GiB" in text
        assert text.count("| ID") == 1
        assert text.count("| id") == 2

    def test_a_long_table_begins_anew(self) -> None:
        assert write(list_output.BATCH_ROWS + 1, "-c", "ID").count("| ID") == 2

    @pytest.mark.parametrize("how", list_output.FORMATTERS)
    def test_no_name_steers_the_terminal(self, how: str) -> None:
        text = write(1, "-f", how)
        assert "\x1b" not in text
        assert "2Jb" in text

    @given(
        st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60), st.text(max_size=300))),
        st.integers(min_value=60, max_value=250),
    )
    def test_a_table_fits_and_no_id_is_broken(
        self, texts: list[tuple[str, str, str]], width: int
    ) -> None:
        (line,) = lines(1)
        written = [
            replace(line, id=ID, name=name, owner=owner, reason=reason)
            for name, owner, reason in texts
        ]
        text = write_lines(written, "--max-width", str(width))
        assert max(map(terminal_width, text.splitlines())) <= width
        assert text.count(f"| {ID} |") == len(texts)

    @pytest.mark.parametrize(
        ("width", "reason", "columns"),
        [
            (80, REASON, "ID State Reason"),
            (100, REASON, "ID Name Due In State Reason"),
            (120, REASON, "ID Name Size Stores Due In State Reason"),
            (250, REASON, "ID Name Owner Size Stores Deleted At Due At Due In State Reason"),
            # What says nothing makes way.
            (80, "", "ID Name Due In State"),
        ],
    )
    def test_narrow_table_has_the_most_important_columns(
        self, width: int, reason: str, columns: str
    ) -> None:
        (line,) = lines(1)
        late = timedelta(hours=-16, minutes=-3)
        line = replace(line, id=ID, name="ubuntu", owner="o" * 32, due_in=late, reason=reason)
        text = write_lines([line], "--max-width", str(width))
        assert text.splitlines()[1].replace("|", "").split() == columns.split()

    def test_requested_columns_are_shown_at_any_width(self) -> None:
        columns = ("-c", "ID", "-c", "Deleted At", "-c", "Due At", "-c", "Due In")
        text = write(1, "--max-width", "40", *columns)
        head = text.splitlines()[1].split("|")[1:-1]
        assert [cell.strip() for cell in head] == ["ID", "Deleted At", "Due At", "Due In"]

    def test_a_terminal_is_fitted_and_a_file_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        written = [replace(line, id=ID, reason=REASON) for line in lines(2)]
        assert max(map(len, write_lines(written).splitlines())) > 200
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))
        assert max(map(len, write_lines(written).splitlines())) == 80
        assert REASON in write_lines(written, "-f", "value")

    def test_all_parts_of_a_table_have_the_same_columns(self) -> None:
        written = [*lines(list_output.BATCH_ROWS), replace(next(lines(1)), reason=REASON)]
        text = write_lines(written, "--max-width", "80").splitlines()
        heads = [line.replace("|", "").split() for line in text if "ID" in line]
        assert len(heads) == 2
        assert heads[0] == heads[1]

    def test_unknown_column_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="no column colour: there are ID, Name"):
            write(1, "-c", "colour")

    @pytest.mark.costly
    @pytest.mark.parametrize("how", list_output.FORMATTERS)
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
        batch = list_output.BATCH_ROWS
        # Now and then a thread that another test left takes memory meanwhile.
        assert any(peak(5 * batch) < 1.2 * peak(2 * batch) + 100_000 for _ in range(3))
