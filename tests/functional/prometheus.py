# SPDX-License-Identifier: Apache-2.0
"""Evaluates the alert rules and expressions over time with Prometheus's own tool.

What a Prometheus would have scraped is given as a sequence of scrapes, each kept for some minutes,
so that an hour of them takes a moment.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.monitoring import RULES, rules

JOB = "evscrub"
#: Ends of the names of metrics that are times since the epoch.
_TIMES = ("_timestamp_seconds", "_start_time_seconds")

#: Values of a series by its name with labels.
Samples = dict[str, float]


def scrape(port: int, instance: str) -> Samples:
    """Return an agent's metrics as Prometheus stores them, by now with times since the epoch 0.

    :param instance: the label of the agent.
    """
    # Reading the certificates, which nobody needs here, would take longer than the request.
    url = f"http://127.0.0.1:{port}/metrics"
    text = httpx.get(url, timeout=60, trust_env=False, verify=False).text
    now = time.time()
    found: Samples = {series("up", instance=instance): 1.0}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels | {"instance": instance}
            since = now if sample.name.endswith(_TIMES) else 0
            if not math.isnan(sample.value):
                found[series(sample.name, **labels)] = sample.value - since
    return found


def down(instance: str) -> Samples:
    """Return what Prometheus stores of an agent that does not answer."""
    return {series("up", instance=instance): 0.0}


def series(name: str, **labels: str) -> str:
    """Return a series of the job in Prometheus's notation."""
    shown = ", ".join(f'{key}="{value}"' for key, value in sorted(labels.items() | {("job", JOB)}))
    return f"{name}{{{shown}}}"


def firing(*alerts: str) -> Mapping[str, float]:
    """Return the samples of :data:`FIRING` that are expected if these alerts fire."""
    return {f'{{alertname="{name}"}}': 1.0 for name in alerts}


#: The alerts that fire, by name.
FIRING = 'group by (alertname) (ALERTS{alertstate="firing"})'


@dataclass
class Timeline:
    """What Prometheus scraped, minute by minute."""

    minutes: int = 0
    _values: dict[str, list[float | None]] = field(default_factory=dict)

    def add(self, minutes: int, *scrapes: Mapping[str, float]) -> int:
        """Let scrapes of all agents stay the same for some minutes; return the last minute.

        Times in them, which are since the epoch 0, are moved to the first of these minutes.
        A series that is not scraped any more is stale at once.
        """
        for name, value in (item for scraped in scrapes for item in scraped.items()):
            is_time = name.partition("{")[0].endswith(_TIMES)
            moved = value + self.minutes * 60 if is_time else value
            missing = self.minutes - len(values := self._values.setdefault(name, []))
            values += [None] * missing + [moved] * minutes
        self.minutes += minutes
        return self.minutes - 1

    def check(
        self, directory: Path, expected: Iterable[tuple[int, str, Mapping[str, float]]]
    ) -> None:
        """Evaluate expressions.

        :param directory: an empty folder, for a file.
        :param expected: minutes, expressions, and the values of each by its labels.
        """
        checks = [
            {
                "expr": expression,
                "eval_time": f"{minute}m",
                "exp_samples": [
                    {"labels": labels, "value": value} for labels, value in samples.items()
                ],
            }
            for minute, expression, samples in expected
        ]
        run(directory, self.inputs() | {"promql_expr_test": checks})

    def inputs(self) -> dict[str, Any]:
        """Return what was scraped, in promtool's format."""
        scraped = [
            {"series": name, "values": self._notation(values)}
            for name, values in self._values.items()
        ]
        return {"interval": "1m", "input_series": scraped}

    def _notation(self, values: list[float | None]) -> str:
        padded = [*values, *[None] * (self.minutes - len(values))]
        return " ".join("stale" if value is None else repr(float(value)) for value in padded)


def check_alert(
    directory: Path, alert: str, well: Samples, trouble: Samples, after: Samples
) -> None:
    """Check that one alert fires during a trouble, and clears after it.

    :param directory: an empty folder, for a file.
    :param well: what an agent said before it.
    :param trouble: what the agent said during it.
    :param after: what the agent said when it was over.
    """
    timeline = Timeline()
    before = timeline.add(2, well)
    during = timeline.add(pending_minutes(alert) + 1, trouble)
    end = timeline.add(2, after)
    timeline.check(
        directory, [(before, FIRING, {}), (during, FIRING, firing(alert)), (end, FIRING, {})]
    )


def run(directory: Path, *tests: Mapping[str, Any]) -> None:
    """Run tests in promtool's format.

    :raises AssertionError: one failed.
    """
    path = directory / "rules.test.yml"
    content = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": list(tests)}
    path.write_text(yaml.safe_dump(content))
    command: Sequence[str | Path] = ["promtool", "test", "rules", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def pending_minutes(alert: str) -> int:
    """Return for how long the condition of an alert must hold before it fires."""
    (rule,) = (rule for rule in rules() if rule["alert"] == alert)
    duration = rule.get("for", "0m")
    return int(duration[:-1]) * {"m": 1, "h": 60}[duration[-1]]
