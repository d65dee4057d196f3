# SPDX-License-Identifier: Apache-2.0
"""That the benchmarks run, and that what they reckon is right; nothing here is about speed."""

from __future__ import annotations

import importlib
import json
import uuid
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench.kit import bus, seed
from tests.bench.kit.compare import compare, load
from tests.bench.kit.results import Metric, Ratio, Report, percentile
from tests.bench.kit.scale import Scale
from tests.bench.kit.tables import render
from tests.bench.peers.bare import Bare
from tests.bench.peers.plans import shorten


@pytest.mark.costly
def test_quick_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "found.json"
    assert bench.main(["--quick", "--only", "delay_queue", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "heapq + dict" in printed
    assert "Goal: at most 110 bytes each" in printed
    (report,) = json.loads(path.read_text())["reports"]
    assert {sample["peer"] for sample in report["samples"]} == {
        "evscrub",
        "heapq + dict",
        "asyncio timers",
    }
    assert all(value > 0 for sample in report["samples"] for value in sample["values"].values())


@pytest.mark.parametrize("name", bench.BENCHMARKS)
def test_benchmarks_are_there(name: str) -> None:
    assert callable(importlib.import_module(f"tests.bench.{name}").run)


def test_failure_is_told_and_others_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> Report:
        raise RuntimeError("no server")

    def work(*_: object) -> Report:
        return Report("rate", "Title", (Metric("a", "a"),), notes=["done"])

    monkeypatch.setattr("tests.bench.idle.run", fail)
    monkeypatch.setattr("tests.bench.rate.run", work)
    assert bench.main(["--only", "idle", "rate"]) == 1
    captured = capsys.readouterr()
    assert "idle failed: RuntimeError: no server" in captured.err
    assert "Note: done" in captured.out


def test_medians_and_ratios() -> None:
    report = Report("x", "X", (Metric("rate", "images/s"),), (Ratio("rate", "base", "x base"),))
    for value in (10.0, 30.0, 20.0):
        report.add("mariadb", "ours", rate=value)
    report.add("mariadb", "base", rate=4.0)
    report.add("postgresql", "ours", rate=1.0)
    assert report.median("mariadb", "ours", "rate") == 20.0
    assert report.ratio("mariadb", "ours", report.ratios[0]) == 5.0
    assert report.ratio("postgresql", "ours", report.ratios[0]) is None
    assert report.as_json()["medians"] == [
        {"case": "mariadb", "peer": "ours", "rate": 20.0, "x base": 5.0},
        {"case": "mariadb", "peer": "base", "rate": 4.0, "x base": 1.0},
        {"case": "postgresql", "peer": "ours", "rate": 1.0, "x base": None},
    ]
    assert render(report).splitlines()[3:7] == [
        "                  rounds  images/s  x base",
        "----------  ----  ------  --------  ------",
        "mariadb     ours       3        20    5.00",
        "            base       1         4    1.00",
    ]


def measured(*values: float, peer: str = "ours") -> Report:
    report = Report("rate", "Rate", (Metric("rate", "images/s"),))
    for value in values:
        report.add("mariadb", peer, rate=value)
    return report


def saved(path: Path, *reports: Report) -> Path:
    path.write_text(json.dumps({"machine": "", "reports": [each.as_json() for each in reports]}))
    return path


def test_saved_result_is_compared(tmp_path: Path) -> None:
    before = load(saved(tmp_path / "before.json", measured(100.0, 110.0, 90.0)))
    assert compare(before, [measured(150.0, 120.0, 180.0)]).splitlines()[2] == (
        "rate  mariadb  ours  images/s     100    20 %  150    40 %   1.50  *"
    )
    assert "*" not in compare(before, [measured(109.0, 150.0, 180.0)])
    assert (
        compare(before, [measured(1.0, peer="theirs")]) == "Nothing was measured before and now.\n"
    )
    other = Report("idle", "Idle", (Metric("rate", "images/s"),))
    other.add("mariadb", "ours", rate=1.0)
    assert compare(before, [other]) == "Nothing was measured before and now.\n"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"reports": [{}]}', '{"reports": 5}', "\x00"])
def test_file_without_saved_results_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "saved.json"
    path.write_text(text)
    for name in (path, tmp_path / "missing.json"):
        with pytest.raises(SystemExit):
            bench.parse(["--compare", str(name)])
        assert name.name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 5.0), (0.99, 10.0), (0.1, 1.0), (0.11, 2.0), (1.0, 10.0)]
)
def test_percentile(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(10, 0, -1)], share) == expected


def test_ids_are_glance_ids_and_differ() -> None:
    ids = seed.Batch(100, first=7).ids
    assert len(set(ids)) == 100
    assert all(str(uuid.UUID(each)) == each for each in ids)
    assert ids[0] == seed.image_id(7)


def test_notification_is_read_by_evscrub() -> None:
    message = json.loads(json.loads(bus.notification(5, bus.utc_now()))["oslo.message"])
    from evscrub.intake.notification import parse  # noqa: PLC0415 - the one test that is about it

    event = parse(message["event_type"], message["payload"], bus.utc_now())
    assert (event.image_id, event.owner) == (seed.image_id(5), seed.owner(5))


def test_scale() -> None:
    assert Scale(quick=True).count(1000, 10) == 10
    assert list(Scale(quick=True).turns) == [0]
    assert Scale(factor=0.1).count(1000, 10) == 100
    assert Scale(factor=0.001).count(1000, 10) == 10


def test_statements_are_shortened() -> None:
    long = (
        "SELECT images.id, images.owner\nFROM images WHERE images.id IN (%(a)s, %(b)s) LIMIT %(c)s"
    )
    assert shorten(long) == "SELECT ... FROM images WHERE images.id IN (...) LIMIT ?"


def test_bare_loop_unlinks(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    bare = Bare.__new__(Bare)
    bare.unlink([("image", 1, f"file://{tmp_path}/a")])
    assert not (tmp_path / "a").exists()
