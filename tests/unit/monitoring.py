# SPDX-License-Identifier: Apache-2.0
"""What the alert rules and the dashboard ask Prometheus for."""

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "etc" / "prometheus" / "evscrub.rules.yml"
DASHBOARD = ROOT / "etc" / "grafana" / "evscrub.json"


def expressions() -> Iterator[str]:
    """Yield all expressions of the rules and of the dashboard."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]
    board = json.loads(DASHBOARD.read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
