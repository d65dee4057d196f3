# SPDX-License-Identifier: Apache-2.0
"""The nodes of a database: their addresses, how far their clocks are apart, what a check says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oslo_upgradecheck.upgradecheck import Code

from evscrub.checks import registry
from evscrub.domain.address import Address
from evscrub.registry import nodes
from evscrub.registry.nodes import NodeClock


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.0.0.1:3307", [("10.0.0.1", 3307)]),
        ("10.0.0.1", [("10.0.0.1", 3306)]),
        (" node-2.example:3306 ", [("node-2.example", 3306)]),
        ("[fd00::2]:3306", [("fd00::2", 3306)]),
        ("[fd00::2]", [("fd00::2", 3306)]),
        ("AUTO", []),
        ("", []),
        (":3306", []),
        ("a:b:c", []),
        ("a:99999", []),
        ("a:0", []),
    ],
)
def test_addresses_as_clusters_name_them(text: str, found: list[tuple[str, int]]) -> None:
    assert list(nodes.parse([text], 3306)) == found


@given(st.lists(st.text()))
def test_whatever_a_server_says_is_an_address_or_none(texts: list[str]) -> None:
    assert all(host and 0 < port < 2**16 for host, port in nodes.parse(texts, 3306))


@given(st.lists(st.tuples(st.integers(-99, 99), st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_the_true_difference_is_between_the_bounds(clocks: list[tuple[int, int, int]]) -> None:
    read = [NodeClock(Address("h", 1), off - going, off + coming) for off, going, coming in clocks]
    least, most = nodes.apart(read)
    offs = [off for off, _, _ in clocks]
    assert least <= max(offs) - min(offs) <= most


def check(monkeypatch: pytest.MonkeyPatch, *offs: float | None) -> tuple[Code, str]:
    """Check nodes whose clocks are off by so much, or that do not answer."""
    found = [Address(f"10.0.0.{number}", 3306) for number in range(len(offs))]

    def read_clock(_database: object, address: Address, _boot: object) -> NodeClock | None:
        off = offs[found.index(address)]
        return None if off is None else NodeClock(address, off - 0.001, off + 0.001)

    monkeypatch.setattr(nodes, "addresses", lambda _: found)
    monkeypatch.setattr(nodes, "read_clock", read_clock)
    subject: Any = SimpleNamespace(database=None)
    findings = registry.node_clocks(subject)
    return findings.code, findings.details or ""


def test_says_how_far_the_clocks_of_nodes_are_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = check(monkeypatch, 0.0, 15.0, 0.3)
    assert code is Code.FAILURE
    assert "3 database nodes are 15 s apart" in said
    assert "compared with 10.0.0.0:3306, 10.0.0.1:3306 is 15 s ahead." in said


@pytest.mark.parametrize(
    ("off", "code"), [(0.0, Code.SUCCESS), (0.9, Code.SUCCESS), (1.5, Code.WARNING)]
)
def test_clocks_that_agree_are_no_failure(
    monkeypatch: pytest.MonkeyPatch, off: float, code: Code
) -> None:
    found, said = check(monkeypatch, 0.0, off)
    assert found is code
    assert ("2 database nodes agree within" in said) == (code is Code.SUCCESS)


def test_says_which_nodes_could_not_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = check(monkeypatch, 0.0, None, 0.1)
    assert code is Code.SUCCESS
    assert "Not reachable from here, so not compared: 10.0.0.1:3306." in said


def test_single_node_has_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(monkeypatch, 0.0) == (Code.SUCCESS, "")
    assert check(monkeypatch, None) == (Code.SUCCESS, "")
