# SPDX-License-Identifier: Apache-2.0
"""The table of Glance releases that `tests/run.sh releases` prints."""

from __future__ import annotations

from collections import Counter

from docutils.core import publish_doctree

from tests.releases.environments import RELEASES
from tests.releases.table import HEADINGS, Row, as_table

AREAS = Counter(agent=8, check=2, facts=5, postgresql=1, restore=5, tables=2)


def cells(table: str) -> list[list[str]]:
    """Read a table as docutils does."""
    tree = publish_doctree(table, settings_overrides={"report_level": 1, "halt_level": 1})
    rows = tree.findall(lambda node: node.tagname == "row")
    return [[" ".join(cell.astext().split()) for cell in row.children] for row in rows]


def test_a_release_that_works() -> None:
    read = cells(as_table([Row("28.0.1", "2024.1", "3.11.7", AREAS)]))
    cases = "agent 8, check 2, facts 5, postgresql 1, restore 5, tables 2"
    assert read == [list(HEADINGS), ["28.0.1", "2024.1", "3.11.7", cases, "works"]]


def test_what_does_not_work_is_named_once_in_100_columns() -> None:
    row = Row("28.0.1", "2024.1", "3.11.7", AREAS)
    for what in ("agent: setup", "agent: setup", "facts: a delete leaves " + "the rows " * 9):
        row.fail(what.strip())
    table = as_table([row, Row("30.0.0", "2025.1", "3.11.7")])
    assert max(map(len, table.splitlines())) <= 100
    _, first, second = cells(table)
    assert first[-1] == f"fails: agent: setup; facts: a delete leaves {'the rows ' * 9}".strip()
    assert second[-2:] == ["", "did not run"]


def test_each_release_names_its_glance() -> None:
    for release in RELEASES:
        assert release.version.split(".")[0] == release.name.removeprefix("glance")
