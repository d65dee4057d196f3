# SPDX-License-Identifier: Apache-2.0
"""What the alert rules and the dashboard ask Prometheus for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "etc" / "prometheus" / "evscrub.rules.yml"
DASHBOARD = ROOT / "etc" / "grafana" / "evscrub.json"


def rules() -> Iterator[dict[str, Any]]:
    """Yield the alerting rules."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


def panels() -> Iterator[dict[str, Any]]:
    """Yield the panels of the dashboard that show something."""
    board = json.loads(DASHBOARD.read_text())
    return (panel for panel in board["panels"] if panel["type"] != "row")


def expressions() -> Iterator[str]:
    """Yield all expressions of the rules and of the dashboard."""
    for rule in rules():
        yield rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
