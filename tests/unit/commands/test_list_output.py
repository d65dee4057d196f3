# SPDX-License-Identifier: Apache-2.0
"""The table of ``evscrub list``, and the OpenStack client's formats for any rows."""

import argparse
import csv
import gc
import io
import json
import multiprocessing
import os
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import wcwidth
import yaml
from cliff.formatters.json_format import JSONFormatter
from hypothesis import given
from hypothesis import strategies as st

from evscrub.commands import list_output, table_output
from evscrub.commands.table_output import SizeBytes, Table
from evscrub.domain.image_report import ImageReport
from evscrub.domain.refusals import UsageError

ID = "6f945939-449e-442e-8aea-d5be45ab20d1"
REASON = (
    "permission denied: user nobody (uid 65534) may not delete in /var/lib/glance/images: Operation"
    " not permitted (EPERM): look for immutable files ('lsattr') (tried 9 times)"
)
NOW = datetime(2026, 5, 1, 12, 0, 0)


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
    table_output.add_arguments(parser, list_output.TABLE)
    out = io.StringIO() if stdout is None else stdout
    table_output.write(list_output.TABLE, written, out, parser.parse_args(arguments))  # type: ignore[arg-type] # a stand-in
    return out.getvalue() if isinstance(out, io.StringIO) else ""


class TestFormats:
    @pytest.mark.parametrize("count", [0, 1, 2, table_output.BATCH_ROWS + 1])
    @pytest.mark.parametrize("how", ["json", "yaml"])
    def test_structured_formats_are_one_list(self, how: str, count: int) -> None:
        text = write(count, "-f", how, "-c", "ID", "-c", "Stores")
        read = json.loads(text) if how == "json" else yaml.load(text, yaml.CSafeLoader)
        assert read == [{"ID": f"id{number}", "Stores": ["x", "y"]} for number in range(count)]

    @pytest.mark.parametrize("count", [0, 1, 3])
    @pytest.mark.parametrize("indent", [[], ["--noindent"]])
    def test_json_is_written_as_cliff_writes_it(self, count: int, indent: list[str]) -> None:
        parser = argparse.ArgumentParser()
        table_output.add_arguments(parser)
        rows = [("é", number, [1, {}], None) for number in range(count)]
        wrote = []
        for formatter in (JSONFormatter(), table_output.StreamedJSONFormatter()):
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
        [(0, "0s"), (-0.4, "0s"), (7500, "2h5m"), (-3600, "-1h"), (90_000, "1d1h")],
    )
    def test_a_table_has_short_durations(self, due_in: float, shown: str) -> None:
        one = replace(next(lines(1)), due_in=timedelta(seconds=due_in))
        cells = write_lines([one], "-c", "Due In").split("|")
        assert shown in map(str.strip, cells)

    def test_a_table_is_for_people(self) -> None:
        text = write(2, "--long")
        assert "3.0 GiB" in text
        assert text.count("| ID") == 1
        assert text.count("| id") == 2

    def test_a_long_table_begins_anew(self) -> None:
        assert write(table_output.BATCH_ROWS + 1, "-c", "ID").count("| ID") == 2

    @pytest.mark.parametrize("how", table_output.FORMATTERS)
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
        assert text.replace(" ", "").count(f"|{ID}|") == len(texts)

    @pytest.mark.parametrize(
        ("width", "columns"),
        [
            (20, "ID"),
            (40, "ID"),
            (60, "ID State"),
            (78, "ID Due In State Reason"),
            (80, "ID Name Due In State Reason"),
            (120, "ID Name Due In State Reason"),
            (250, "ID Name Due In State Reason"),
        ],
    )
    @pytest.mark.parametrize("reason", ["", REASON])
    def test_a_table_has_five_columns_or_as_many_as_fit(
        self, width: int, reason: str, columns: str
    ) -> None:
        (line,) = lines(1)
        late = timedelta(hours=-16, minutes=-30)
        line = replace(line, id=ID, name="ubuntu 24.04", owner="o" * 32, due_in=late)
        line = replace(line, state="waiting", reason=reason)
        text = write_lines([line], "--max-width", str(width))
        shown = set(text.splitlines()[1].replace("|", " ").split())
        if reason:
            assert shown == set(columns.split())
        else:  # the column takes less
            assert shown >= set(columns.split())
        assert ID in text
        most = max(map(len, text.splitlines()))
        assert most <= max(width, len(ID) + 2)

    @pytest.mark.parametrize("width", [[], ["--max-width", "20"], ["--fit-width"]])
    @pytest.mark.parametrize("columns", [["--long"], ["-c", "id", "-c", "reason"], []])
    def test_no_id_is_wrapped(
        self, width: list[str], columns: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((20, 24)))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        (line,) = lines(1)
        text = write_lines([replace(line, id=ID, reason=REASON)], *width, *columns)
        assert f"|{ID}|" in text

    @pytest.mark.parametrize("how", ["table", *table_output.FORMATTERS])
    def test_other_formats_and_long_tables_have_all_columns(self, how: str) -> None:
        every = list(list_output.TABLE.columns)
        parser = argparse.ArgumentParser()
        table_output.add_arguments(parser, list_output.TABLE)

        def chosen(*arguments: str) -> list[str]:
            return list_output.TABLE.shown(parser.parse_args(["-f", how, *arguments]))

        assert chosen() == (
            ["ID", "Name", "Due In", "State", "Reason"] if how == "table" else every
        )
        assert chosen("--long") == every
        assert chosen("--long", "-c", "due_at") == ["Due At"]

    def test_a_long_table_has_all_columns_on_any_terminal(self) -> None:
        (line,) = lines(1)
        text = write_lines([replace(line, id=ID, reason=REASON)], "--max-width", "80", "--long")
        shown = [cell.strip() for cell in text.splitlines()[1].split("|")[1:-1]]
        assert shown == list(list_output.TABLE.columns)

    def test_requested_columns_are_shown_at_any_width(self) -> None:
        columns = ("-c", "ID", "-c", "Deleted At", "-c", "Due At", "-c", "Due In")
        text = write(1, "--max-width", "40", *columns)
        head = text.splitlines()[1].split("|")[1:-1]
        assert [cell.strip() for cell in head] == ["ID", "Deleted At", "Due At", "Due In"]

    def test_a_terminal_is_fitted_and_a_file_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        written = [replace(line, id=ID, reason=REASON) for line in lines(2)]
        assert max(map(len, write_lines(written).splitlines())) > 200  # nothing is wrapped
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))
        assert max(map(len, write_lines(written).splitlines())) == 80
        assert REASON in write_lines(written, "-f", "value")

    def test_all_parts_of_a_table_have_the_same_columns(self) -> None:
        written = [*lines(table_output.BATCH_ROWS), replace(next(lines(1)), reason=REASON)]
        text = write_lines(written, "--max-width", "80").splitlines()
        heads = [line.replace("|", "").split() for line in text if "ID" in line]
        assert len(heads) == 2
        assert heads[0] == heads[1]

    def test_unknown_column_is_an_error(self) -> None:
        with pytest.raises(UsageError, match="no column colour: there are ID, Name"):
            write(1, "-c", "colour")

    @pytest.mark.costly
    @pytest.mark.parametrize("how", table_output.FORMATTERS)
    def test_many_rows_take_no_more_memory_than_few(
        self, how: str, process: ProcessPoolExecutor
    ) -> None:
        few, many = process.submit(_peaks_bytes, how).result()
        assert many < 1.2 * few + 100_000


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """Return another process, for threads of other tests take memory too."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        yield executor


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        if len(text) > 10_000:
            gc.collect()  # a table is full of cycles
        return len(text)


def _peaks_bytes(how: str) -> tuple[int, int]:
    """How much memory two batches take, and five."""

    def peak(count: int) -> int:
        tracemalloc.start()
        write(count, "-f", how, "-c", "ID", "-c", "Due In", stdout=_Nowhere())
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return taken

    peak(10)  # what is imported stays
    batch = table_output.BATCH_ROWS
    return peak(2 * batch), peak(5 * batch)


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("value", "fast 2 3221225472\nslow 1000 0\n"),
        ("csv", '"Store","Images","Bytes"\n"fast",2,3221225472\n"slow",1000,0\n'),
    ],
)
def test_other_rows_are_written_with_their_own_columns(how: str, wanted: str) -> None:
    rows = [("fast", 2, 3 << 30), ("slow", 1000, 0)]
    table = Table[tuple[str, int, int]](
        {
            "Store": lambda row: row[0],
            "Images": lambda row: row[1],
            "Bytes": lambda row: SizeBytes(row[2]),
        }
    )
    parser = argparse.ArgumentParser()
    table_output.add_arguments(parser)
    out = io.StringIO()
    table_output.write(table, rows, out, parser.parse_args(["-f", how]))
    assert out.getvalue() == wanted
    out = io.StringIO()
    table_output.write(table, rows, out, parser.parse_args(["--max-width", "20"]))
    assert "3.0 GiB" not in out.getvalue()  # the last columns are omitted
    out = io.StringIO()
    table_output.write(table, rows, out, parser.parse_args([]))
    assert [text.strip() for text in out.getvalue().splitlines()[3].split("|")[1:-1]] == [
        "fast",
        "2",
        "3.0 GiB",
    ]
