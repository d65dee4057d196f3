# SPDX-License-Identifier: Apache-2.0
"""The metrics as Prometheus reads them, and those that the alerts and the dashboard ask for."""

import re

import pytest
from prometheus_client import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from evscrub.status import metrics, snapshot
from evscrub.status.registry_count import Pending, RegistryCount, SpaceCount
from evscrub.status.snapshot import Sources
from tests.unit.agent_parts import NOW, FakeClock, make_busy, make_group, make_sources
from tests.unit.monitoring import expressions, panels

#: What client-go's workqueue has, under evscrub's prefix.
WORKQUEUE = {
    "depth": "gauge",
    "adds": "counter",
    "queue_duration_seconds": "histogram",
    "work_duration_seconds": "histogram",
    "unfinished_work_seconds": "gauge",
    "longest_running_processor_seconds": "gauge",
    "retries": "counter",
}


SPACE = SpaceCount(NOW - 40, {"fast": 500, None: 7})
COUNT = RegistryCount(NOW - 30, Pending(4744, 500, 1), 39, 4704, (), SPACE)


def scrape(sources: Sources) -> dict[str, Metric]:
    registry = metrics.registry(sources.statistics, lambda: snapshot.take(sources), lambda: COUNT)
    text = generate_latest(registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.fixture
def busy() -> Sources:
    sources = make_sources(FakeClock(), make_group("1/2", "1/2"), 2)
    make_busy(sources)
    return sources


def value(families: dict[str, Metric], sample_name: str, **labels: str) -> float:
    (found,) = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == sample_name and sample.labels == labels
    ]
    return found


def test_workqueue_s_names_are_there_with_their_types(busy: Sources) -> None:
    families = scrape(busy)
    for name, kind in WORKQUEUE.items():
        assert families[f"evscrub_{name}"].type == kind


def test_an_agent_that_did_nothing_has_metrics_without_samples() -> None:
    families = scrape(make_sources(FakeClock()))
    assert value(families, "evscrub_depth") == 0
    assert value(families, "evscrub_oldest_due_age_seconds") == 0
    assert not families["evscrub_last_sweep_timestamp_seconds"].samples
    assert not families["evscrub_last_event_timestamp_seconds"].samples


def test_values_are_those_of_the_agent(busy: Sources) -> None:
    families = scrape(busy)
    for name, wanted in {
        "evscrub_depth": 8,
        "evscrub_taken": 2,
        "evscrub_backlog": 10,
        "evscrub_waiting": 10,
        "evscrub_awaiting_retry": 3,
        "evscrub_registry_pending_images": 4744,
        "evscrub_registry_due_images": 39,
        "evscrub_registry_held_images": 1,
        "evscrub_registry_later_images": 4704,
        "evscrub_registry_counted_timestamp_seconds": NOW - 30,
        "evscrub_registry_bytes_counted_timestamp_seconds": NOW - 40,
        "evscrub_adds_total": 23,
        "evscrub_retries_total": 3,
        "evscrub_images_scrubbed_total": 7,
        "evscrub_missed_by_bus_total": 1,
        "evscrub_leases_lost_total": 2,
        "evscrub_registry_damaged_images": 1,
        "evscrub_events_received_total": 12,
        "evscrub_bus_joined": 1,
        "evscrub_database_up": 1,
        "evscrub_last_event_timestamp_seconds": NOW - 3,
        "evscrub_last_sweep_timestamp_seconds": NOW - 30,
        "evscrub_lateness_seconds_count": 3,
        "evscrub_scrub_time_seconds": 3600,
    }.items():
        assert value(families, name) == wanted, name
    # The two that were due longest are taken.
    assert value(families, "evscrub_oldest_due_age_seconds") == pytest.approx(67)
    assert value(families, "evscrub_reclaimed_bytes_total", store="fast") == 6000
    assert value(families, "evscrub_registry_pending_bytes", store="fast") == 500
    assert value(families, "evscrub_registry_pending_bytes", store="(none)") == 7
    for name, labels in (
        ("registry_parked_images", {"store": "(none)", "reason": "bad_url"}),
        ("registry_parked_images", {"store": "fast", "reason": "unexpected"}),
        ("registry_in_use_images", {"store": "fast", "reason": "in_use"}),
        ("retrying_images", {"store": "fast", "reason": "timeout"}),
    ):
        assert value(families, f"evscrub_{name}", **labels) == 1
    # Each failed image is in one of the states.
    assert len(families["evscrub_registry_parked_images"].samples) == 2
    assert len(families["evscrub_retrying_images"].samples) == 1
    assert value(families, "evscrub_events_malformed_total", reason="no owner") == 1
    assert value(families, "evscrub_breaker_state", store="fast", state="blown") == 1
    assert value(families, "evscrub_breaker_state", store="fast", state="closed") == 0
    assert value(families, "evscrub_lane_owners_stopped", store="slow") == 1
    assert value(families, "evscrub_lane_concurrency_limit", store="slow") == 8
    assert value(families, "evscrub_lane_concurrency_max", store="slow") == 16


def test_buckets_of_a_histogram_add_up(busy: Sources) -> None:
    samples = scrape(busy)["evscrub_lateness_seconds"].samples
    buckets = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 3
    assert value(
        {"": scrape(busy)["evscrub_lateness_seconds"]}, "evscrub_lateness_seconds_sum"
    ) == (pytest.approx(400.35))


def of_registry(families: dict[str, Metric]) -> dict[str, Metric]:
    return {name: of for name, of in families.items() if name.startswith("evscrub_registry_")}


def test_nothing_is_said_of_the_registry_while_its_database_does_not_answer(busy: Sources) -> None:
    """Another agent may know better, and the maximum over agents would hide that."""
    before = scrape(busy)
    assert len(of_registry(before)) == 10
    assert all(family.samples for family in of_registry(before).values())
    busy.scrubber._context.calls._failed("it cannot be read")
    after = scrape(busy)
    assert value(after, "evscrub_database_up") == 0
    assert of_registry(after).keys() == of_registry(before).keys()
    assert not any(family.samples for family in of_registry(after).values())
    assert value(after, "evscrub_waiting") == 10


def test_no_label_has_what_users_name_things(busy: Sources) -> None:
    registry = metrics.registry(busy.statistics, lambda: snapshot.take(busy), lambda: None)
    text = generate_latest(registry).decode()
    for name in ("owner 3", "somebody", "p1", "r1", "Detail", "directory"):
        assert name not in text


def test_alerts_and_dashboard_name_only_metrics_that_are_there(busy: Sources) -> None:
    there = {sample.name for family in scrape(busy).values() for sample in family.samples}
    there |= {"evscrub_info", "up"}
    wanted = {
        name for expression in expressions() for name in re.findall(r"\bevscrub_\w+", expression)
    }
    assert len(wanted) > 20
    assert wanted <= there


def test_figures_of_the_registry_are_never_added_up_over_agents() -> None:
    found = 0
    for expression in expressions():
        for name in re.finditer(r"\bevscrub_registry_\w+", expression):
            before = expression[: name.start()]
            assert re.search(r"\bmax(?: by \((?!.*instance)[\w, ]+\) )?\($", before), expression
            found += 1
    assert found > 10


def test_counts_of_what_agents_do_are_added_up() -> None:
    """Their ages and states are not: the worst of all agents is shown, or each agent's."""
    counts = re.compile(r"\bevscrub_(waiting|backlog|claims|retrying_images|\w+_(total|bucket))\b")
    found = 0
    for panel in panels():
        for target in panel["targets"]:
            for _ in counts.finditer(target["expr"]):
                assert re.search(r"\bsum(?: by \([\w, ]+\) )?\(", target["expr"]), panel["title"]
                found += 1
    assert found > 10


def test_alerts_and_dashboard_ask_for_labels_that_are_there(busy: Sources) -> None:
    families = scrape(busy)
    states = {s.labels["state"] for s in families["evscrub_breaker_state"].samples}
    for expression in expressions():
        for selected in re.findall(r'state(?:=|=~)"([^"]+)"', expression):
            assert set(selected.split("|")) <= states
