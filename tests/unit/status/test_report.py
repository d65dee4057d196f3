# SPDX-License-Identifier: Apache-2.0
"""What is read of ``/status``, from an agent and from anything else, and what needs an operator."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.commands import status_table
from evscrub.status.fields import UnreadableError
from evscrub.status.report import AgentReport, StoreReport, problems, read
from evscrub.status.snapshot import Sources, take
from evscrub.status.view import view
from tests.unit.agent_parts import FakeClock, make_busy, make_group, make_sources


def status(*, busy: bool) -> dict[str, Any]:
    group = make_group("1/2", "1/2", "1/2", gone=1) if busy else None
    sources: Sources = make_sources(FakeClock(), group, 2)
    if busy:
        make_busy(sources)
    read_back: dict[str, Any] = json.loads(
        json.dumps(view(sources.statistics(), take(sources), (), None))
    )
    return read_back


BUSY, WELL = status(busy=True), status(busy=False)


def test_all_of_an_agent_is_read() -> None:
    report = read(BUSY)
    assert (report.waiting, report.due, report.in_work) == (10, 10, 0)
    assert (report.parked, report.in_use, report.retrying, report.damaged) == (2, 1, 1, 1)
    assert (report.scrubbed, report.scrubbed_bytes) == (7, 6000)
    assert (report.late_median_seconds, report.late_p95_seconds) == (0.3, 400)
    assert (report.bus_joined, report.bus_last_seconds) == (True, 3)
    assert (report.sweep_failing, report.sweep_last_seconds) == (False, 30)
    assert (report.database_answers, report.database_refuses_changes) == (True, False)
    fast, slow = report.stores
    assert (fast.name, fast.breaker, fast.reason) == ("fast", "blown", "its directory is missing")
    assert (slow.concurrency_limit, slow.concurrency_max, slow.owners_stopped) == (8, 16, 1)


def test_an_agent_that_is_well_needs_nobody() -> None:
    assert list(problems(read(WELL))) == []


def test_each_problem_is_said() -> None:
    said = list(problems(read(BUSY)))
    assert [line.split(":")[0] for line in said] == [
        "store fast is paused",
        "1 project is stopped in store slow, because image after image of them fails",
        "2 images are parked",
        "1 image is damaged and left alone",
    ]
    assert "SIGHUP" in said[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bus_joined": False}, "has not joined the bus"),
        ({"database_answers": False}, "database does not answer"),
        ({"database_answers": False, "database_refuses_changes": True}, "takes no changes"),
        ({"clock_disputed_seconds": -3.0}, "database's clock is 3 s behind"),
        ({"sweep_failing": True}, "sweeps of the registry fail"),
    ],
)
def test_other_problems_are_said_too(change: dict[str, Any], said: str) -> None:
    (line,) = problems(replace(read(WELL), **change))
    assert said in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"breaker": "open", "reason": "bad_store"}, "store s does not work: bad store; 3 images"),
        ({"breaker": "probing", "reason": "x y_z"}, "evscrub retry --store s"),
        ({"fault": "its driver is missing"}, "store s cannot be used: its driver is missing"),
    ],
)
def test_problems_of_stores_are_said(change: dict[str, Any], said: str) -> None:
    store = StoreReport("s", "closed", "", "", 1, 2, 0, 1, 1, 0, 0, 0, 0)
    report = replace(read(WELL), stores=(replace(store, **change),))
    (line,) = problems(report)
    assert said in line


def paths(found: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to each value."""
    if isinstance(found, dict):
        children: Any = found.items()
    elif isinstance(found, list):
        children = enumerate(found)
    else:
        children = ()
    return [path, *(way for key, value in children for way in paths(value, (*path, key)))][1:] + (
        [path] if path else []
    )


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([10**400, -(10**30), 1e300, float("nan"), "\x1b[2J", "x" * 5000, [], {}]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children),
    max_leaves=5,
)


@given(st.sampled_from(paths(BUSY)), ODD, st.booleans())
def test_odd_fields_are_refused_or_can_be_shown(
    path: tuple[Any, ...], odd: Any, remove: bool
) -> None:
    changed = deepcopy(BUSY)
    parent = changed
    for step in path[:-1]:
        parent = parent[step]
    if remove:
        del parent[path[-1]]
    else:
        parent[path[-1]] = odd
    try:
        report = read(changed)
    except UnreadableError:
        return
    show(report)


def show(report: AgentReport) -> None:
    """Check that a report can be shown by each format."""
    json.dumps(asdict(report))
    said = list(problems(report))
    for width in (80, 120):
        cells = status_table.cells(report, len(said))
        lines = list(status_table.render({"host:1": cells}, width))
        lines += status_table.problem_lines("host:1", said, width)
        text = "\n".join(lines)
        assert all(line.isprintable() for line in text.split("\n"))


@given(st.dictionaries(st.text(), ODD) | st.just({}))
def test_anything_else_is_refused(found: dict[str, Any]) -> None:
    with pytest.raises(UnreadableError):
        read(found)
