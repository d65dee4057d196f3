# SPDX-License-Identifier: Apache-2.0
"""Validate the alert rules and the dashboard with Prometheus's tool."""

import re
import subprocess
from pathlib import Path

import yaml

from tests.unit.monitoring import RULES, expressions


def test_promtool_accepts_alerts_and_dashboard_queries(tmp_path: Path) -> None:
    subprocess.run(["promtool", "check", "rules", RULES], check=True, capture_output=True)
    queries = [
        re.sub(r"\$__\w+", "5m", text).replace("$job", "j").replace("$instance", ".*")
        for text in expressions()
        if not text.startswith("label_values")
    ]
    rules = [{"record": f"query:{n}", "expr": text} for n, text in enumerate(queries)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", path], check=False, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
