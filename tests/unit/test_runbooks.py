# SPDX-License-Identifier: Apache-2.0
"""The runbooks that alerts link to."""

from __future__ import annotations

import tomllib
from urllib.parse import urlsplit

import pytest
from docutils import nodes
from docutils.core import publish_doctree

from tests.unit.monitoring import ROOT, rules

PAGE = ROOT / "etc" / "docs" / "watching.rst"
ALERTS = {rule["alert"]: rule["annotations"].get("runbook_url", "") for rule in rules()}


@pytest.fixture(scope="module")
def anchors() -> set[str]:
    """Return the anchors of the page's sections."""
    # Sphinx's roles are unknown to docutils, which reports them and goes on.
    settings = {"report_level": 5, "halt_level": 5}
    page = publish_doctree(PAGE.read_text(), settings_overrides=settings)
    return {anchor for section in page.findall(nodes.section) for anchor in section["ids"]}


@pytest.mark.parametrize("alert", ALERTS)
def test_runbook_is_a_section_of_the_documentation(alert: str, anchors: set[str]) -> None:
    url = urlsplit(ALERTS[alert])
    assert url.scheme == "https"
    assert url.path.rpartition("/")[2] == PAGE.with_suffix(".html").name
    assert url.fragment == alert.lower()
    assert url.fragment in anchors


def test_runbooks_are_where_the_project_says_that_its_documentation_is() -> None:
    (base,) = {url.rpartition("/")[0] for url in ALERTS.values()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    documentation = project.get("urls", {}).get("Documentation", base)
    assert base == documentation.rstrip("/")
