# SPDX-License-Identifier: Apache-2.0
"""The Prometheus metrics, read from the agent at each scrape.

Names follow client-go's workqueue where it has a counterpart. Label values come from fixed sets,
such as the configured stores, the states of a breaker and the reasons in the code, never from names
that users or the registry supply.

What the registry holds is in :mod:`~evscrub.status.registry_metrics`, under names that begin with
``evscrub_registry_``: each agent reports the same, so the maximum over agents is the figure of the
deployment. All others are of what one agent works on, which can be added up.
"""

import math
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from evscrub import version
from evscrub.flow_control.circuit_breaker import State
from evscrub.intake.listener import ListenerStatistics
from evscrub.scrubbing.lane import LaneStatistics
from evscrub.scrubbing.statistics import ScrubberStatistics
from evscrub.status import group_view, registry_metrics
from evscrub.status.families import counter, gauge, histogram, labeled, store_label
from evscrub.status.registry_count import RegistryCount
from evscrub.status.snapshot import AgentStatistics, Snapshot
from evscrub.telemetry.statistics import TroubleState

_Labeled = dict[tuple[str, ...], float]

#: Metrics of each lane, and their help.
_OF_LANES: tuple[tuple[str, str, Callable[[LaneStatistics], float]], ...] = (
    ("lane_ready", "Due images in the lane that are not claimed", lambda lane: lane.ready),
    ("lane_claimed", "Images claimed ahead of the workers", lambda lane: lane.claimed),
    (
        "lane_owners_stopped",
        "Owners whose images wait because they failed one after another",
        lambda lane: lane.health.owners_stopped,
    ),
    (
        "lane_provable",
        "0 if the last proof found no live image to ask the store for, else 1; NaN before any",
        lambda lane: math.nan if lane.is_provable is None else lane.is_provable,
    ),
    ("lane_running", "Running workers", lambda lane: lane.running),
    (
        "lane_concurrency_limit",
        "Current limit of concurrent deletes",
        lambda lane: lane.health.pace.concurrent,
    ),
    (
        "lane_concurrency_max",
        "Concurrent deletes that the operator allows",
        lambda lane: lane.health.pace.most_concurrent,
    ),
    (
        "lane_rate_limit",
        "Current rate limit, deletes per second; 0 is none",
        lambda lane: lane.health.pace.rate,
    ),
    (
        "lane_rate_max",
        "Rate limit that the operator set, deletes per second; 0 is none",
        lambda lane: lane.health.pace.most_rate,
    ),
)


class AgentCollector(Collector):
    """Collects an agent's metrics.

    :param statistics: returns the agent's statistics.
    :param snapshot: returns the latest snapshot of waiting images and images in trouble.
    :param count: returns the latest count of the registry; None before the first.
    """

    def __init__(
        self,
        statistics: Callable[[], AgentStatistics],
        snapshot: Callable[[], Snapshot],
        count: Callable[[], RegistryCount | None],
    ) -> None:
        self._statistics = statistics
        self._snapshot = snapshot
        self._count = count

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, all of one moment except for those of the snapshot and the count."""
        statistics, snapshot = self._statistics(), self._snapshot()
        yield InfoMetricFamily(
            "evscrub", "Version of evscrub", {"version": version.version_string_with_package()}
        )
        yield from registry_metrics.collect(statistics, snapshot, self._count())
        yield from _queue(statistics, snapshot)
        yield from _images(statistics.scrubber, snapshot)
        yield from _bus(statistics.listener, statistics.scrubber.record.missed_by_bus)
        yield from _sweeps(statistics)
        yield from _stores(statistics.scrubber)
        yield from _limits(statistics.scrubber)
        yield from group_view.metrics(statistics)


def registry(
    statistics: Callable[[], AgentStatistics],
    snapshot: Callable[[], Snapshot],
    count: Callable[[], RegistryCount | None],
) -> CollectorRegistry:
    """Return a registry of the metrics of an agent and its process; see :class:`AgentCollector`."""
    own = CollectorRegistry(auto_describe=False)
    own.register(AgentCollector(statistics, snapshot, count))
    ProcessCollector(registry=own)
    return own


def _queue(statistics: AgentStatistics, snapshot: Snapshot) -> Iterator[Metric]:
    queue, record = statistics.queue, statistics.scrubber.record
    leases = statistics.scrubber.leases
    yield gauge("depth", "Images that are due and not claimed", queue.ready)
    yield counter("adds", "Images that entered the queue", queue.adds)
    yield histogram(
        "queue_duration_seconds",
        "Time from when an image was due, or ready for its retry, to the start of its first delete",
        record.queued,
    )
    yield histogram(
        "work_duration_seconds",
        "Time from the start of an image's first delete to its settlement",
        record.worked,
    )
    yield gauge(
        "unfinished_work_seconds",
        "Sum of the ages of running scrubs",
        leases.in_work_seconds,
    )
    yield gauge(
        "longest_running_processor_seconds",
        "Age of the longest-running scrub",
        leases.longest_seconds,
    )
    yield counter("retries", "Images queued for a retry", record.retries)
    yield gauge(
        "waiting",
        "Images in this agent's memory that are not due and have not failed; several agents may"
        " have an image in memory, and those due later are only in the registry",
        snapshot.waiting,
    )
    yield gauge(
        "awaiting_retry",
        "Failed images in this agent's memory whose next try is not due",
        snapshot.awaiting_retry,
    )
    yield gauge("taken", "Images being looked up or claimed, and unsettled jobs", queue.taken)
    yield gauge(
        "backlog",
        "Images in this agent's memory that are due and not settled",
        queue.ready + queue.taken,
    )
    yield gauge(
        "oldest_due_age_seconds",
        "Time since the oldest image was due, or ready for its retry",
        snapshot.oldest_due_age,
    )
    yield gauge(
        "queue_capacity",
        "Maximum number of images that wait, await a retry or are due",
        queue.capacity,
    )
    yield counter(
        "dropped", "Images that the full queue dropped; a later sweep finds them", queue.dropped
    )


def _images(scrubber: ScrubberStatistics, snapshot: Snapshot) -> Iterator[Metric]:
    record = scrubber.record
    yield counter("images_scrubbed", "Images whose data is gone", record.scrubbed)
    yield histogram(
        "lateness_seconds",
        "Time from when an image was due to the end of its last delete",
        record.lateness,
    )
    yield labeled(
        CounterMetricFamily,
        "outcomes",
        "Locations of settled claims, by outcome",
        ("store", "outcome", "reason"),
        {(store_label(store), *rest): count for (store, *rest), count in record.outcomes.items()},
    )
    yield labeled(
        CounterMetricFamily,
        "reclaimed_bytes",
        "Space reclaimed, by the sizes of the images in the registry",
        ("store",),
        {(store_label(store),): size for store, size in record.bytes_reclaimed.items()},
    )
    yield labeled(
        CounterMetricFamily,
        "images_finished",
        "Images finished without a delete: their data is kept, or they had no location",
        ("reason",),
        {(reason,): count for reason, count in record.finished.items()},
    )
    yield labeled(
        CounterMetricFamily,
        "left_alone",
        "Images that turned out to need no scrubbing",
        ("reason",),
        {(reason,): count for reason, count in record.left_alone.items()},
    )
    yield labeled(
        GaugeMetricFamily,
        "retrying_images",
        "Images that failed here and are retried, without those that are parked or in use",
        ("store", "reason"),
        registry_metrics.failed_images(snapshot, TroubleState.RETRYING),
    )
    yield gauge("claims", "Claims that are not settled", scrubber.leases.claims)
    yield gauge("unsettled", "Ended jobs whose result is not in the registry", scrubber.unsettled)
    yield counter("leases_lost", "Leases that expired or were taken over", record.leases_lost)


def _bus(listener: ListenerStatistics, missed: int) -> Iterator[Metric]:
    yield gauge("bus_joined", "1 while the listener is connected to the bus", listener.joined)
    yield counter("events_received", "Notifications received", listener.received)
    yield counter("events_ignored", "Notifications that need no action", listener.ignored)
    yield labeled(
        CounterMetricFamily,
        "events_malformed",
        "Notifications with invalid content",
        ("reason",),
        {(reason,): count for reason, count in listener.malformed.items()},
    )
    yield gauge("last_event_timestamp_seconds", "Time of the last notification", listener.last_at)
    yield counter(
        "missed_by_bus",
        "Images found by a sweep that the bus should have announced, to this agent or to another"
        " that is late with them",
        missed,
    )


def _sweeps(statistics: AgentStatistics) -> Iterator[Metric]:
    sweep, answers = statistics.sweep, not statistics.scrubber.registry.is_away
    yield gauge("database_up", "1 while the database answers and accepts changes", answers)
    yield counter("sweeps", "Finished sweeps", sweep.count)
    yield counter("sweep_adds", "Images that sweeps added to the queue", sweep.added)
    yield gauge("last_sweep_timestamp_seconds", "Time when the last sweep finished", sweep.last_at)
    yield gauge(
        "last_sweep_duration_seconds",
        "Duration of the last sweep",
        None if sweep.last is None else sweep.last.seconds,
    )
    yield gauge(
        "clock_ahead_seconds",
        "Offset of this host's clock from the database's, positive if ahead",
        statistics.database_clock.skew_seconds,
    )


def _stores(scrubber: ScrubberStatistics) -> Iterator[Metric]:
    lanes = {store_label(lane.store): lane for lane in scrubber.lanes}
    for name, help_text, value in _OF_LANES:
        values: _Labeled = {(store,): float(value(lane)) for store, lane in lanes.items()}
        yield labeled(GaugeMetricFamily, name, help_text, ("store",), values)
    yield labeled(
        GaugeMetricFamily,
        "breaker_state",
        "1 for the current state of the store's circuit breaker, 0 for the others",
        ("store", "state"),
        {
            (store, state.value): lane.health.breaker is state
            for store, lane in lanes.items()
            for state in State
        },
    )
    yield labeled(
        CounterMetricFamily,
        "proofs",
        "Proofs of stores that reported data missing, by result",
        ("store", "result"),
        {
            (store_label(store), result.value): count
            for (store, result), count in scrubber.proofs.items()
        },
    )


def _limits(scrubber: ScrubberStatistics) -> Iterator[Metric]:
    settings = scrubber.settings
    yield gauge(
        "concurrency_limit",
        "Maximum number of concurrent deletes, all stores",
        settings.concurrency,
    )
    yield gauge(
        "rate_limit", "Rate limit of all stores, deletes per second; 0 is none", settings.rate
    )
    yield gauge(
        "scrub_time_seconds",
        "Delay between the deletion of an image and of its data",
        settings.policy.scrub_time.total_seconds(),
    )
