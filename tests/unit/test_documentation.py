# SPDX-License-Identifier: Apache-2.0
"""What the documentation says about the repository, the command line, options and metrics."""

from __future__ import annotations

import argparse
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from evscrub.cli import COMMANDS, make_parser
from evscrub.config.options import list_opts
from evscrub.status import metrics, snapshot
from tests.unit.agent_parts import FakeClock, make_sources

REPOSITORY = Path(__file__).parents[2]
README = Path("README.rst")
PAGES = [path.relative_to(REPOSITORY) for path in REPOSITORY.glob("etc/docs/*.rst")]
DOCUMENTS = [
    README,
    *(path.relative_to(REPOSITORY) for path in REPOSITORY.glob("etc/**/*.rst")),
    Path("devstack/README.rst"),
]
GLOSSARY = Path("etc/docs/glossary.rst")

#: In lines, which the formatter would make one term each.
TERMS = (
    "adaptive limit", "backlog", "burst", "circuit breaker", "claim", "closed", "delay", "due",
    "expire", "forced open", "half-open", "hand back", "histogram", "hold", "job", "lane", "lease",
    "open", "orphan", "park", "proof", "registry", "release", "renew", "settle", "sweep",
    "token bucket", "witness", "worker",
)  # fmt: skip


def text_of(document: Path) -> str:
    return (REPOSITORY / document).read_text()


def literals(document: Path) -> list[str]:
    """Return the texts between double backquotes, with each run of white space as one space."""
    found = re.findall(r"``([^`]+?)``(?!`)", text_of(document))
    return [" ".join(literal.split()) for literal in found]


def code_lines(document: Path) -> Iterator[str]:
    """Yield the lines of a document's blocks of code."""
    outside: int | None = None  # how far the paragraph before the block is indented
    for line in text_of(document).splitlines():
        indent = len(line) - len(line.lstrip())
        if line and outside is not None and indent <= outside:
            outside = None
        if outside is not None:
            yield line.strip()
        elif re.search(r"::$|^ *\.\. code-block::", line):
            outside = indent


def test_readme_has_at_most_900_words() -> None:
    assert len(text_of(README).split()) <= 900


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_named_source_files_exist(document: Path) -> None:
    named = re.findall(r"``((?:evscrub|tests|etc|devstack)/[\w./-]+)``", text_of(document))
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_to_files_and_their_sections(document: Path) -> None:
    """Links of Sphinx, such as those to pages and terms, are checked by its build."""
    text = text_of(document)
    links = re.findall(r"`[^`<]+<([^`>]+)>`__?", text)
    links += re.findall(r"^\.\. _[^:]+: (\S+)$", text, re.MULTILINE)
    links += re.findall(
        r"^ *\.\. (?:image|figure|include|literalinclude):: (\S+)$", text, re.MULTILINE
    )
    assert [link for link in links if not leads_somewhere(document, link)] == []


def leads_somewhere(document: Path, link: str) -> bool:
    if re.match(r"https?://", link):
        return True
    path, _, section = link.partition("#")
    target = (REPOSITORY / document).parent / path
    return target.is_file() and (not section or section in anchors(target.read_text()))


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's sections."""
    titles = re.findall(r"^(\S.*)\n([=~^\"'-])\2+$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") for title, _ in titles}


@pytest.mark.parametrize(
    "image", sorted(REPOSITORY.glob("etc/docs/**/*.svg")), ids=lambda p: p.name
)
def test_drawings_are_well_formed_and_need_nothing_else(image: Path) -> None:
    """GitHub shows a drawing without scripts, and without what it would load from elsewhere."""
    root = ET.parse(image).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox")
    active = r"<script|\bon\w+=|href=.(?!#)|url\((?!#)|@import"
    assert not re.search(active, image.read_text())


@pytest.fixture(scope="module")
def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return each command's parser, and the program's under an empty name."""
    program = make_parser().whole()
    found = {"": program}
    for action in program._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def command_lines(document: Path) -> Iterator[list[str]]:
    """Yield the words of each command line of evscrub, from its name on."""
    for text in [*literals(document), *code_lines(document)]:
        for part in text.split(" | "):
            if match := re.match(r"(?:\$ |sudo |\S+/)*evscrub ([a-z-].*)", part):
                yield re.split(r"[ =]+", match[1])
    for literal in literals(document):
        if re.match(rf"(?:{'|'.join(COMMANDS)}) -", literal):
            yield re.split(r"[ =]+", literal)


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_command_lines_have_commands_and_options_that_exist(
    document: Path, parsers: dict[str, argparse.ArgumentParser]
) -> None:
    for words in command_lines(document):
        name = next((word for word in words if word in COMMANDS), "")
        known = {one for key in ("", name) for one in parsers[key]._option_string_actions}
        written = [word.rstrip(",;:)") for word in words if word.startswith("-") and word != "-"]
        assert name or written, words
        assert [option for option in written if option not in known] == [], words


@pytest.mark.parametrize("page", ["commands", "evscrub.8"])
def test_reference_has_each_command_once(page: str) -> None:
    text = text_of(Path(f"etc/docs/{page}.rst"))
    described = re.findall(r"^\.\. evscrub-command:: (\w+)$", text, re.MULTILINE)
    assert sorted(described) == sorted(set(COMMANDS) - {"run"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_named_options_exist(document: Path) -> None:
    options = {str(group): {opt.dest for opt in opts} for group, opts in list_opts()}
    del options["DEFAULT"]  # has Glance's and oslo.log's options too
    for literal in literals(document):
        if match := re.fullmatch(r"\[(\w+)\] (\w+)(?: = .*)?", literal):
            group, name = match.groups()
            assert name in options.get(group, {name}), literal


# The list of changes names metrics that were removed.
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.stem != "changes"], ids=str)
def test_named_metrics_exist(document: Path) -> None:
    sources = make_sources(FakeClock())
    registry = metrics.registry(sources.statistics, lambda: snapshot.take(sources), lambda: None)
    known = set()
    for family in registry.collect():
        endings = {"counter": ["_total"], "info": ["_info"], "histogram": ["", "_bucket", "_sum"]}
        known |= {family.name + ending for ending in endings.get(family.type, [""])}
    named = {
        match[0]
        for literal in literals(document)
        if (match := re.match(r"evscrub_\w*[a-z](?![\w.])", literal))
    }
    assert named <= known


def test_readme_links_to_all_pages() -> None:
    """But to the start of the site, and to the manual page, which a terminal shows."""
    linked = set(re.findall(r"<(etc/docs/[\w.]+)>`_", text_of(README)))
    assert {str(page) for page in PAGES} - linked == {
        "etc/docs/index.rst",
        "etc/docs/evscrub.8.rst",
    }


def test_glossary_defines_each_term_once() -> None:
    text = text_of(GLOSSARY)
    defined = re.findall(r"^ *([a-z][a-z -]*)\n +\S", text, re.MULTILINE)
    assert [term for term in TERMS if defined.count(term) != 1] == []
