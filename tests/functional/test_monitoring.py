# SPDX-License-Identifier: Apache-2.0
"""The alert rules and the dashboard, evaluated by Prometheus's tool."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.functional.prometheus import FIRING, Timeline, down, firing, pending_minutes, run, series
from tests.unit.monitoring import RULES, expressions, rules

#: An agent that is well.
UP = {series("up", instance="a"): 1.0}


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


@dataclass(frozen=True)
class Case:
    """A condition that an alert is for.

    :param trouble: what is scraped while it holds, besides :attr:`always`.
    :param well: what is scraped before it, and after it but for counters.
    :param besides: other alerts that fire with it.
    :param grows: by how much the values of the trouble grow each minute.
    :param holds_after_minutes: when its condition holds, from the start of the trouble.
    :param clears_after_minutes: when it is over, from the end of the trouble.
    """

    alert: str
    trouble: Mapping[str, float]
    well: Mapping[str, float]
    besides: Sequence[str] = ()
    grows: float = 0.0
    holds_after_minutes: int = 0
    clears_after_minutes: int = 0
    always: Mapping[str, float] = field(default_factory=lambda: UP)


def of(name: str, value: float, **labels: str) -> dict[str, float]:
    return {series(name, instance="a", **labels): value}


def breaker(state: str) -> dict[str, float]:
    states = ("closed", "open", "probing", "blown")
    return {
        name: value
        for each in states
        for name, value in of(
            "evscrub_breaker_state", each == state, store="fast", state=each
        ).items()
    }


def counter(alert: str, name: str, minutes: int) -> Case:
    """Return the case of an alert on a counter that increased within so many minutes."""
    return Case(alert, of(name, 7), of(name, 0), grows=1, clears_after_minutes=minutes)


NO_STORE = {"store": "(none)", "reason": "store_not_enabled"}
LAST_SWEEP = of("evscrub_last_sweep_timestamp_seconds", 0)
STARTED = of("process_start_time_seconds", 0) | of("evscrub_info", 1, version="1")
CASES = (
    Case("EvscrubAgentDown", down("b"), {series("up", instance="b"): 1.0}),
    Case("EvscrubNoAgent", down("a"), UP, besides=["EvscrubAgentDown"], always={}),
    Case(
        "EvscrubBacklogOverdue",
        of("evscrub_oldest_due_age_seconds", 1801),
        of("evscrub_oldest_due_age_seconds", 1800),
    ),
    Case("EvscrubStoreFailing", breaker("open"), breaker("closed")),
    Case("EvscrubStoreFailing", breaker("probing"), breaker("closed")),
    Case(
        "EvscrubOwnersStopped",
        of("evscrub_lane_owners_stopped", 2, store="fast"),
        of("evscrub_lane_owners_stopped", 0, store="fast"),
    ),
    Case("EvscrubStorePaused", breaker("blown"), breaker("closed")),
    Case("EvscrubImagesParked", of("evscrub_registry_parked_images", 3, **NO_STORE), {}),
    Case(
        "EvscrubImagesDamaged",
        of("evscrub_registry_damaged_images", 1),
        of("evscrub_registry_damaged_images", 0),
    ),
    Case("EvscrubBusAway", of("evscrub_bus_joined", 0), of("evscrub_bus_joined", 1)),
    counter("EvscrubBusMissesImages", "evscrub_missed_by_bus_total", 60),
    Case(
        "EvscrubFewerMembersThanConsumers",
        of("evscrub_group_members", 2),
        of("evscrub_group_members", 3),
        always=UP | of("evscrub_bus_consumers", 3),
    ),
    Case(
        "EvscrubCoordinatorAway",
        of("evscrub_group_coordinator_up", 0),
        of("evscrub_group_coordinator_up", 1),
    ),
    Case("EvscrubRegistryAway", of("evscrub_database_up", 0), of("evscrub_database_up", 1)),
    Case("EvscrubNoSweep", LAST_SWEEP, LAST_SWEEP, holds_after_minutes=61),
    Case("EvscrubNoSweep", STARTED, STARTED | LAST_SWEEP, holds_after_minutes=61),
    counter("EvscrubLeasesLost", "evscrub_leases_lost_total", 60),
    Case(
        "EvscrubClockSkew",
        of("evscrub_clock_ahead_seconds", -30.5),
        of("evscrub_clock_ahead_seconds", -30),
    ),
    counter("EvscrubQueueFull", "evscrub_dropped_total", 15),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_alert_fires_in_time_and_clears(case: Case, tmp_path: Path) -> None:
    timeline = Timeline()
    for _ in range(5):
        began = timeline.add(1, case.always, case.well) + 1
    fires = began + case.holds_after_minutes + pending_minutes(case.alert)
    if case.grows:
        for minute in range(fires - began + 5):
            now = {name: value + case.grows * minute for name, value in case.trouble.items()}
            timeline.add(1, case.always, now)
        ended = timeline.minutes
        timeline.add(case.clears_after_minutes + 1, case.always, now)
    else:
        ended = timeline.add(fires - began + 5, case.always, case.trouble) + 1
        for _ in range(case.clears_after_minutes + 1):
            timeline.add(1, case.always, case.well)
    fired = firing(case.alert, *case.besides)
    expected = [
        (began - 1, FIRING, {}),
        (fires, FIRING, fired),
        (ended - 1, FIRING, fired),
        (ended + case.clears_after_minutes, FIRING, {}),
    ]
    if fires > began:
        expected.append((fires - 1, FIRING, {}))
    timeline.check(tmp_path, expected)


def test_an_agent_that_prometheus_does_not_know_is_none(tmp_path: Path) -> None:
    timeline = Timeline()
    timeline.add(6, {'up{job="another"}': 1.0})
    timeline.check(tmp_path, [(4, FIRING, {}), (5, FIRING, firing("EvscrubNoAgent"))])


def test_each_alert_has_a_case() -> None:
    assert {case.alert for case in CASES} == {rule["alert"] for rule in rules()}


def test_agents_that_report_the_same_make_one_alert(tmp_path: Path) -> None:
    """With the figure of the registry, and not its sum; and an alert links to its runbook."""
    timeline = Timeline()
    parked = [
        {series("evscrub_registry_parked_images", instance=instance, **NO_STORE): images}
        for instance, images in (("a", 3.0), ("b", 4.0))
    ]
    timeline.add(20, UP, *parked)
    (rule,) = (rule for rule in rules() if rule["alert"] == "EvscrubImagesParked")
    alert = {
        "exp_labels": {"job": "evscrub", "severity": "warning", **NO_STORE},
        "exp_annotations": {
            "summary": "4 images in store (none) are parked: store_not_enabled",
            "description": rule["annotations"]["description"],
            "runbook_url": rule["annotations"]["runbook_url"],
        },
    }
    wanted = {"alertname": "EvscrubImagesParked", "eval_time": "16m", "exp_alerts": [alert]}
    run(tmp_path, timeline.inputs() | {"alert_rule_test": [wanted]})
