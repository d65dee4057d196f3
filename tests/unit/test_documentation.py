# SPDX-License-Identifier: Apache-2.0
"""What the documentation says about the code's layout."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
GLOSSARY = Path("etc/docs/glossary.rst")
DOCUMENTS = [
    Path("README.rst"),
    *(path.relative_to(REPOSITORY) for path in REPOSITORY.glob("etc/**/*.rst")),
]

#: In lines, which the formatter would make one term each.
TERMS = (
    "adaptive limit", "backlog", "burst", "circuit breaker", "claim", "closed", "delay", "due",
    "expire", "forced open", "half-open", "hand back", "histogram", "hold", "job", "lane", "lease",
    "open", "orphan", "park", "proof", "registry", "release", "renew", "settle", "sweep",
    "token bucket", "witness", "worker",
)  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_named_source_files_exist(document: Path) -> None:
    text = (REPOSITORY / document).read_text()
    named = re.findall(r"``((?:evscrub|tests|etc|devstack)/[\w./-]+)``", text)
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_boxes_of_the_picture_are_modules() -> None:
    boxes = re.findall(r"[│┤] ([a-z_]+/[a-z_]+) +[│├└]", (REPOSITORY / "README.rst").read_text())
    assert len(boxes) == 9
    assert [box for box in boxes if not (REPOSITORY / f"evscrub/{box}.py").exists()] == []


def test_layout_describes_every_package() -> None:
    readme = (REPOSITORY / "README.rst").read_text()
    packages = {path.parent.name for path in REPOSITORY.glob("evscrub/*/__init__.py")}
    described = re.findall(r"``(\w+)/``", readme)
    assert set(described) >= packages


def test_readme_links_to_the_glossary() -> None:
    assert f"``{GLOSSARY}``" in (REPOSITORY / "README.rst").read_text()


def test_glossary_defines_each_term_once() -> None:
    text = (REPOSITORY / GLOSSARY).read_text()
    defined = re.findall(r"^ *([a-z][a-z -]*)\n +\S", text, re.MULTILINE)
    assert [term for term in TERMS if defined.count(term) != 1] == []
