# SPDX-License-Identifier: Apache-2.0
"""The metrics, read from the agent when they are asked for.

Names are those of client-go's workqueue where it has one. Labels take their values from fixed sets:
the stores of the configuration, the states of a breaker, the reasons in the code; never from what
users or the registry call things.
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
from evscrub.scrubbing.scrubber import ScrubberStatistics
from evscrub.status.families import counter, gauge, histogram, labeled
from evscrub.status.registry_count import RegistryCount
from evscrub.status.snapshot import AgentStatistics, Snapshot

#: How the store is called of images that no usable store has.
NO_STORE = "(none)"

#: What is counted in the registry, and its help.
_COUNTED = (
    (
        "registry_pending_images",
        "Pending images in the registry, held ones included, when they were counted last",
    ),
    ("registry_pending_bytes", "Size of those images"),
    ("registry_held_images", "Those of them that are held"),
    ("registry_later_images", "Those of them that are due later than sweeps look ahead"),
    ("registry_counted_timestamp_seconds", "When the images in the registry were counted last"),
)

_Labeled = dict[tuple[str, ...], float]

#: What is told of each lane, and its help.
_OF_LANES: tuple[tuple[str, str, Callable[[LaneStatistics], float]], ...] = (
    ("lane_ready", "Images that are due in the lane", lambda lane: lane.ready),
    ("lane_claimed", "Images claimed ahead of the workers", lambda lane: lane.claimed),
    (
        "lane_owners_stopped",
        "Owners whose images fail one after another, and wait",
        lambda lane: lane.health.owners_stopped,
    ),
    (
        "lane_provable",
        "1 if live images told at last whether the store is the right one, 0 if it has none",
        lambda lane: math.nan if lane.is_provable is None else lane.is_provable,
    ),
    ("lane_running", "Images in work", lambda lane: lane.running),
    ("lane_concurrency_limit", "Images at a time, now", lambda lane: lane.health.pace.concurrent),
    (
        "lane_concurrency_max",
        "Images at a time, allowed",
        lambda lane: lane.health.pace.most_concurrent,
    ),
    ("lane_rate_limit", "Deletes a second now; 0 is no limit", lambda lane: lane.health.pace.rate),
    (
        "lane_rate_max",
        "Deletes a second allowed; 0 is no limit",
        lambda lane: lane.health.pace.most_rate,
    ),
)


class AgentCollector(Collector):
    """Collects an agent's metrics.

    :param statistics: returns what the agent's parts say.
    :param snapshot: returns the latest look at what waits and is in trouble.
    :param count: returns the registry's latest count, None before the first.
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
        """Yield the metrics, all of one moment but for those of a snapshot."""
        statistics, snapshot = self._statistics(), self._snapshot()
        yield InfoMetricFamily(
            "evscrub", "This evscrub", {"version": version.version_string_with_package()}
        )
        yield from _queue(statistics, snapshot)
        yield from _images(statistics.scrubber, snapshot)
        yield from _bus(statistics.listener, statistics.scrubber.record.missed_by_bus)
        yield from _registry(statistics)
        yield from _counted_in_registry(statistics, self._count())
        yield from _stores(statistics.scrubber)
        yield from _limits(statistics.scrubber)


def registry(
    statistics: Callable[[], AgentStatistics],
    snapshot: Callable[[], Snapshot],
    count: Callable[[], RegistryCount | None],
) -> CollectorRegistry:
    """Return a registry of an agent's metrics and its process's; see :class:`AgentCollector`."""
    own = CollectorRegistry(auto_describe=False)
    own.register(AgentCollector(statistics, snapshot, count))
    ProcessCollector(registry=own)
    return own


def _queue(statistics: AgentStatistics, snapshot: Snapshot) -> Iterator[Metric]:
    queue, record = statistics.queue, statistics.scrubber.record
    leases = statistics.scrubber.leases
    yield gauge("depth", "Images that are due and wait for a worker", queue.ready)
    yield counter("adds", "Images that entered the queue", queue.adds)
    yield histogram(
        "queue_duration_seconds",
        "From when images were due, at first or again, to when their first delete began",
        record.queued,
    )
    yield histogram(
        "work_duration_seconds",
        "From when images' first delete began to when their end was in the registry",
        record.worked,
    )
    yield gauge(
        "unfinished_work_seconds",
        "How long the images in work have been so, taken together",
        leases.in_work_seconds,
    )
    yield gauge(
        "longest_running_processor_seconds",
        "How long the image has been in work that has been so longest",
        leases.longest_seconds,
    )
    yield counter("retries", "Images put back to be tried again", record.retries)
    yield gauge(
        "waiting",
        "Images in this agent's memory that are not due yet; those due later are in the registry",
        queue.waiting,
    )
    yield gauge("taken", "Images looked at, claimed or in work", queue.taken)
    yield gauge("backlog", "Images that are due and not done with", queue.ready + queue.taken)
    yield gauge(
        "oldest_due_age_seconds",
        "How long the image has been due, at first or again, that has been so longest",
        snapshot.oldest_due_age,
    )
    yield gauge("queue_capacity", "Images that fit into the queue", queue.capacity)
    yield counter("dropped", "Images that a full queue left to a later sweep", queue.dropped)


def _images(scrubber: ScrubberStatistics, snapshot: Snapshot) -> Iterator[Metric]:
    record = scrubber.record
    yield counter("images_scrubbed", "Images whose data is gone", record.scrubbed)
    yield histogram(
        "lateness_seconds",
        "From when images were due to when their last location was gone",
        record.lateness,
    )
    yield labeled(
        CounterMetricFamily,
        "outcomes",
        "Locations whose claim was settled, by what became of them",
        ("store", "outcome", "reason"),
        {(_store(store), *rest): count for (store, *rest), count in record.outcomes.items()},
    )
    yield labeled(
        CounterMetricFamily,
        "reclaimed_bytes",
        "Space that came free, by the images' size in the registry",
        ("store",),
        {(_store(store),): size for store, size in record.bytes_reclaimed.items()},
    )
    yield labeled(
        CounterMetricFamily,
        "images_finished",
        "Images finished without a delete: their data stays, or no location was left",
        ("reason",),
        {(reason,): count for reason, count in record.finished.items()},
    )
    yield labeled(
        CounterMetricFamily,
        "left_alone",
        "Images that were looked at and not claimed",
        ("reason",),
        {(reason,): count for reason, count in record.left_alone.items()},
    )
    for name, help_text, parked in (
        ("parked_images", "Images that only an operator can help", True),
        ("retrying_images", "Images that failed and are tried again", False),
    ):
        yield labeled(
            GaugeMetricFamily,
            name,
            help_text,
            ("store", "reason"),
            {
                (_store(group.store), group.reason): count
                for group, count in snapshot.troubles.groups.items()
                if group.parked is parked
            },
        )
    yield gauge("damaged_images", "Images found that only a person can judge", record.damaged)
    yield gauge("claims", "Images claimed and not settled", scrubber.leases.claims)
    yield gauge("unsettled", "Ended images not in the registry yet", scrubber.unsettled)
    yield counter("leases_lost", "Claims that ran out or were taken over", record.leases_lost)


def _bus(listener: ListenerStatistics, missed: int) -> Iterator[Metric]:
    yield gauge("bus_joined", "1 when the bus was joined", listener.joined)
    yield counter("events_received", "Notifications received", listener.received)
    yield counter("events_ignored", "Notifications of no concern", listener.ignored)
    yield labeled(
        CounterMetricFamily,
        "events_malformed",
        "Notifications that Glance would not send",
        ("reason",),
        {(reason,): count for reason, count in listener.malformed.items()},
    )
    yield gauge("last_event_timestamp_seconds", "When the last notification came", listener.last_at)
    yield counter(
        "missed_by_bus",
        "Images that a sweep found although the bus should have told an agent of them: this one, or"
        " another that was late with them",
        missed,
    )


def _registry(statistics: AgentStatistics) -> Iterator[Metric]:
    sweep, answers = statistics.sweep, not statistics.scrubber.registry.is_away
    yield gauge("registry_up", "1 while the registry answers", answers)
    yield counter("sweeps", "Sweeps finished", sweep.count)
    yield counter("sweep_adds", "Images that sweeps put into the queue", sweep.added)
    yield gauge("last_sweep_timestamp_seconds", "When the last sweep finished", sweep.last_at)
    yield gauge(
        "last_sweep_duration_seconds",
        "How long the last sweep took",
        None if sweep.last is None else sweep.last.seconds,
    )
    yield gauge(
        "clock_ahead_seconds",
        "How far this host's clock is ahead of the database's",
        statistics.database_clock.skew_seconds,
    )


def _counted_in_registry(
    statistics: AgentStatistics, count: RegistryCount | None
) -> Iterator[Metric]:
    """Yield what the registry holds, whichever agent asks it."""
    values: tuple[float | None, ...] = (None,) * len(_COUNTED)
    if count is not None:
        total, at = count.total, statistics.at
        counted_at = at.wall - (at.boot - count.at)
        values = (total.images, total.size_bytes, total.held, count.later, counted_at)
    for (name, help_text), value in zip(_COUNTED, values, strict=True):
        yield gauge(name, help_text, value)


def _stores(scrubber: ScrubberStatistics) -> Iterator[Metric]:
    lanes = {_store(lane.store): lane for lane in scrubber.lanes}
    for name, help_text, value in _OF_LANES:
        values: _Labeled = {(store,): float(value(lane)) for store, lane in lanes.items()}
        yield labeled(GaugeMetricFamily, name, help_text, ("store",), values)
    yield labeled(
        GaugeMetricFamily,
        "breaker_state",
        "1 for the state that the store's breaker is in",
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
        "Questions for live images, asked when a store did not have an image's data",
        ("store", "result"),
        {
            (_store(store), result.value): count
            for (store, result), count in scrubber.proofs.items()
        },
    )


def _limits(scrubber: ScrubberStatistics) -> Iterator[Metric]:
    settings = scrubber.settings
    yield gauge("concurrency_limit", "Images at a time, all stores", settings.concurrency)
    yield gauge("rate_limit", "Deletes a second, all stores; 0 is no limit", settings.rate)
    yield gauge(
        "scrub_time_seconds",
        "How long a deleted image's data is kept",
        settings.policy.scrub_time.total_seconds(),
    )


def _store(name: str) -> str:
    return name or NO_STORE
