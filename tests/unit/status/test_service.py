# SPDX-License-Identifier: Apache-2.0
"""Readiness, the page, and what it may do in a browser."""

import base64
import hashlib
import re
from types import SimpleNamespace
from typing import Any

import anyio

from evscrub.domain.clock import ClockStatistics
from evscrub.registry.calls import CallsStatistics
from evscrub.status.service import Readiness, load_page


def test_a_registry_that_takes_no_changes_is_told_from_one_that_is_silent() -> None:
    async def lacking(**state: bool) -> list[str]:
        statistics: Any = SimpleNamespace(
            scrubber=SimpleNamespace(registry=CallsStatistics(**state)),
            sweep=SimpleNamespace(count=1),
            database_clock=ClockStatistics(0.0, None),
        )
        database: Any = None  # is not asked
        return await Readiness(database, lambda: statistics).what_lacks()

    async def main() -> None:
        assert await lacking(is_away=True, refuses_changes=True) == [
            "the registry takes no changes"
        ]
        assert await lacking(is_away=True, refuses_changes=False) == [
            "the registry does not answer"
        ]

    anyio.run(main)


def test_the_page_runs_nothing_but_its_own_script() -> None:
    loaded = load_page()
    inline = re.findall(r"<(style|script)>(.*?)</\1>", loaded.html, re.DOTALL)
    assert [kind for kind, _ in inline] == ["style", "script"]
    for kind, text in inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in loaded.policy
    assert "default-src 'none'" in loaded.policy
    assert "unsafe" not in loaded.policy
    assert not re.search(r"\son\w+=|style=|https?://(?!www\.w3\.org/2000/svg)", loaded.html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", loaded.html)
