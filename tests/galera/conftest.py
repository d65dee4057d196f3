# SPDX-License-Identifier: Apache-2.0
"""The cluster, the choice of the long cases, and the table of what they came to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple
from typing import Any

import pytest
import sqlalchemy as sa

from tests.chaos.site import DATABASE
from tests.functional.conftest import IMAGE_TABLES
from tests.functional.glance_tables import make_tables
from tests.galera.scene import Tally
from tests.servers import Galera

_LONG = "test_galera_long.py"
_TALLY = "galera tally"

Tell = Callable[[Tally], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that selects the long cases too."""
    parser.addoption("--galera-long", action="store_true", help="run the long cases on Galera too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the long cases unless they are asked for."""
    long = [item for item in items if item.path.name == _LONG]
    if long and not config.getoption("--galera-long", default=False):
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what the cases came to."""
    rows = [
        (*value, report.outcome)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == _TALLY
    ]
    if not rows:
        return
    rows.insert(0, ("case", *Tally.heads(), "result"))
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows, strict=True)]
    terminalreporter.section("agents on Galera")
    for name, *cells in rows:
        line = [f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)]
        terminalreporter.write_line("  ".join([f"{name:<{widths[0]}}", *line]))


@pytest.fixture
def tell(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Tell:
    """Return a function that reports what the test's case came to."""

    def tell(tally: Tally) -> None:
        record_property(_TALLY, (request.node.name.removeprefix("test_"), *astuple(tally)))

    return tell


@pytest.fixture(scope="module")  # whose tests share a worker, where a session's each have theirs
def _migrated() -> Iterator[Galera]:
    with Galera() as cluster:
        make_tables(cluster.create_database(DATABASE))
        yield cluster


@pytest.fixture
def cluster(_migrated: Galera) -> Galera:
    """Return a cluster with Glance's tables and no image in them; it is to be left whole.

    Its nodes may read what is stale, as they do unless they are told otherwise.
    """
    for variable, value in (("wsrep_sync_wait", "0"), ("innodb_snapshot_isolation", "OFF")):
        _migrated.set_variable(variable, value)
    engine = sa.create_engine(_migrated.nodes[0].database_url(DATABASE))
    with engine.begin() as connection:
        for table in IMAGE_TABLES:
            connection.execute(sa.text(f"DELETE FROM {table}"))
    engine.dispose()
    return _migrated
