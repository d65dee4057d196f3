# SPDX-License-Identifier: Apache-2.0
"""That the pages for operators say what the code, the alerts and the tests say."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from evscrub.domain import verdict
from tests.bench import published
from tests.releases.environments import RELEASES

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "etc/docs"
ALERTS = [
    rule["alert"]
    for group in yaml.safe_load((REPOSITORY / "etc/prometheus/evscrub.rules.yml").read_text())[
        "groups"
    ]
    for rule in group["rules"]
]
#: A value in a message of the code, and where a page leaves one out.
_VALUE = "…"


def page(name: str) -> str:
    return (DOCS / f"{name}.rst").read_text()


def sections(name: str, underline: str) -> list[str]:
    return re.findall(rf"^(.+)\n{re.escape(underline)}{{3,}}$", page(name), re.MULTILINE)


@cache
def messages() -> list[str]:
    """Return all texts of the code, with an ellipsis for each value in them."""
    found = []
    for path in (REPOSITORY / "evscrub").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[.\d]*[sdfgr]", _VALUE, node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = (
                    each.value if isinstance(each, ast.Constant) else _VALUE for each in node.values
                )
                found.append("".join(map(str, parts)))
    return found


def quoted(name: str) -> list[str]:
    """Return the messages that a page quotes: those of some length, in straight quotes."""
    return [" ".join(text.split()) for text in re.findall(r'"([^"]{12,}?)"', page(name))]


def is_said(quote: str, texts: list[str]) -> bool:
    parts = [part.strip() for part in quote.split(_VALUE)]
    pattern = ".*".join(re.escape(part) for part in parts if part.strip(" .:;(),"))
    return any(re.search(pattern, text, re.DOTALL) for text in texts)


def test_each_alert_has_its_runbook_and_each_runbook_its_alert() -> None:
    """Prometheus links to the section by the name of the alert."""
    runbooks = [name for name in sections("watching", "-") if name.startswith("Evscrub")]
    assert sorted(runbooks) == sorted(ALERTS)


@pytest.mark.parametrize("name", ["symptoms", "watching"])
def test_quoted_messages_are_those_of_the_code(name: str) -> None:
    texts, quotes = messages(), quoted(name)
    assert quotes
    assert [quote for quote in quotes if not is_said(quote, texts)] == []


def test_each_reason_to_park_an_image_is_explained() -> None:
    reasons = {
        verdict.BAD_URL,
        verdict.FOREIGN_OBJECT,
        verdict.MAYBE_SHARED,
        verdict.MISSING_BELOW.reason,
        verdict.STORE_AMBIGUOUS,
        verdict.STORE_CANNOT_DELETE,
        verdict.STORE_NOT_ENABLED,
        verdict.STORE_NOT_LOADED,
        verdict.UNDECIPHERABLE,
        verdict.bad_row(ValueError()).reason,
    }
    text = page("symptoms")
    assert sorted(reason for reason in reasons if f"``{reason}``" not in text) == []


def test_refusals_of_a_restore_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^   \* - (it.+|several.+)\n(?:       (.+)\n)?", page("getting_images_back"), re.MULTILINE
    )
    said = [" ".join(filter(None, row)).replace("*status*", _VALUE) for row in rows]
    texts = messages()
    assert len(said) >= 6
    assert [quote for quote in said if not is_said(quote, texts)] == []


def test_boxes_of_the_picture_are_modules() -> None:
    boxes = re.findall(r"[│┤] ([a-z_]+/[a-z_]+) +[│├└]", page("contributing"))
    assert len(boxes) == 9
    assert [box for box in boxes if not (REPOSITORY / f"evscrub/{box}.py").exists()] == []


def test_layout_describes_every_package() -> None:
    packages = {path.parent.name for path in REPOSITORY.glob("evscrub/*/__init__.py")}
    assert packages - set(re.findall(r"``(\w+)/``", page("contributing"))) == set()


def test_benchmarks_are_the_published_ones() -> None:
    text = page("benchmarks")
    rates = [rate for peers in published.THROUGHPUT.values() for rate in peers.values()]
    assert [rate for rate in rates if f"{rate:,.0f}" not in text] == []
    assert [
        share
        for share in published.SHARES.values()
        if f"{share:.0%}".replace("%", " %") not in text
    ] == []
    charts = {report.name for report in published.reports()}
    assert set(re.findall(r"images/(\w+)\.svg", text)) == charts


@pytest.mark.parametrize("name", sorted(path.stem for path in DOCS.glob("*.rst")))
def test_images_are_there(name: str) -> None:
    named = re.findall(r"^\.\. (?:image|figure):: (\S+)", page(name), re.MULTILINE)
    assert [image for image in named if not (DOCS / image).exists()] == []


def test_every_release_that_is_tested_is_listed() -> None:
    text = page("compatibility")
    assert [each.version for each in RELEASES if each.version not in text] == []
