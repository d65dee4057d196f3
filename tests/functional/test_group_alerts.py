# SPDX-License-Identifier: Apache-2.0
"""The alerts on the group that shares the limits, evaluated by Prometheus's tool."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.unit.monitoring import RULES

OF_AGENT = '{job="evscrub", instance="a"}'
FEWER, AWAY = "EvscrubFewerMembersThanConsumers", "EvscrubCoordinatorAway"


#: Alerts, values of metrics by the minute in Prometheus's notation, and when the alerts fire.
CASES: list[tuple[str, dict[str, str], dict[int, bool]]] = [
    (
        FEWER,
        {"evscrub_group_members": "3x4 2x9 3x9", "evscrub_bus_consumers": "3x30"},
        {4: False, 9: False, 10: True, 14: True, 15: False},
    ),
    # An agent that starts joins the bus a moment before the group.
    (
        FEWER,
        {"evscrub_group_members": "2x4 2x3 3x9", "evscrub_bus_consumers": "2x4 3x20"},
        {9: False, 12: False, 15: False},
    ),
    (FEWER, {"evscrub_group_members": "3x20", "evscrub_bus_consumers": "2x20"}, {20: False}),
    (FEWER, {"evscrub_group_members": "3x20"}, {20: False}),
    (FEWER, {"evscrub_bus_consumers": "3x20"}, {20: False}),
    (
        AWAY,
        {"evscrub_group_coordinator_up": "1x4 0x9 1x9"},
        {4: False, 9: False, 10: True, 14: True, 15: False},
    ),
    (AWAY, {"evscrub_group_coordinator_up": "1x4 0x3 1x9"}, {9: False, 12: False}),
    (AWAY, {"evscrub_bus_consumers": "3x20"}, {20: False}),
]


def case(alert: str, series: dict[str, str], fires: dict[int, bool]) -> dict[str, Any]:
    """Return a case as promtool reads it."""
    return {
        "interval": "1m",
        "input_series": [
            {"series": name + OF_AGENT, "values": values} for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "eval_time": f"{minute}m",
                "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                "exp_samples": [{"labels": "{}", "value": 1}] if is_firing else [],
            }
            for minute, is_firing in fires.items()
        ],
    }


def test_alerts_fire_and_clear(tmp_path: Path) -> None:
    tests = [case(*each) for each in CASES]
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": tests}))
    done = subprocess.run(
        ["promtool", "test", "rules", path], check=False, capture_output=True, text=True
    )
    assert not done.returncode, done.stdout + done.stderr
