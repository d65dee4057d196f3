# SPDX-License-Identifier: Apache-2.0
"""The metrics, read from the agent when they are asked for.

Names are those of client-go's workqueue where it has one. Labels take their values from fixed sets:
the stores of the configuration, the states of a breaker, the reasons in the code; never from what
users or the registry call things.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from evscrub import version
from evscrub.flow_control.circuit_breaker import State
from evscrub.scrubbing.lane import Lane
from evscrub.scrubbing.lanes import ready
from evscrub.status.snapshot import Snapshot
from evscrub.status.sources import Sources
from evscrub.status.space import Space
from evscrub.telemetry.histogram import Spread

_PREFIX = "evscrub_"
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
    (
        "registry_counted_timestamp_seconds",
        "When the images in the registry were counted last",
    ),
)

_Labeled = dict[tuple[str, ...], float]


class AgentCollector(Collector):
    """Collects an agent's metrics.

    :param snapshot: gives the latest look at the agent.
    :param space: gives the registry's latest count, None before the first.
    """

    def __init__(
        self,
        sources: Sources,
        snapshot: Callable[[], Snapshot],
        space: Callable[[], Space | None],
    ) -> None:
        self._sources = sources
        self._snapshot = snapshot
        self._space = space

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, all of one moment."""
        snapshot = self._snapshot()
        yield InfoMetricFamily(
            "evscrub", "This evscrub", {"version": version.version_string_with_package()}
        )
        yield from _queue(snapshot, self._sources)
        yield from _images(snapshot, self._sources)
        yield from _bus(self._sources)
        yield from _registry(self._sources)
        yield from _counted_in_registry(self._space())
        yield from _stores(self._sources)
        yield from _limits(self._sources)


def registry(
    sources: Sources, snapshot: Callable[[], Snapshot], space: Callable[[], Space | None]
) -> CollectorRegistry:
    """A registry of an agent's metrics and its process's."""
    own = CollectorRegistry(auto_describe=False)
    own.register(AgentCollector(sources, snapshot, space))
    ProcessCollector(registry=own)
    return own


def _queue(snapshot: Snapshot, sources: Sources) -> Iterator[Metric]:
    queue, record = snapshot.queue, sources.scrubber.record
    yield _gauge("depth", "Images that are due and wait for a worker", queue.ready)
    yield _counter("adds", "Images that entered the queue", queue.adds)
    yield _histogram(
        "queue_duration_seconds",
        "From when images were due, at first or again, to when their first delete began",
        record.queued,
    )
    yield _histogram(
        "work_duration_seconds",
        "From when images' first delete began to when their end was in the registry",
        record.worked,
    )
    yield _gauge(
        "unfinished_work_seconds",
        "How long the images in work have been so, taken together",
        snapshot.in_work.total_seconds,
    )
    yield _gauge(
        "longest_running_processor_seconds",
        "How long the image has been in work that has been so longest",
        snapshot.in_work.longest_seconds,
    )
    yield _counter("retries", "Images put back to be tried again", record.retries)
    yield _gauge(
        "waiting",
        "Images in this agent's memory that are not due yet; those due later are in the registry",
        queue.waiting,
    )
    yield _gauge("taken", "Images looked at, claimed or in work", queue.taken)
    yield _gauge("backlog", "Images that are due and not done with", queue.ready + queue.taken)
    yield _gauge(
        "oldest_due_age_seconds",
        "How long the image has been due, at first or again, that has been so longest",
        snapshot.oldest_due_age,
    )
    yield _gauge("queue_capacity", "Images that fit into the queue", sources.queue.capacity)
    yield _counter("dropped", "Images that a full queue left to a later sweep", queue.dropped)


def _images(snapshot: Snapshot, sources: Sources) -> Iterator[Metric]:
    record = sources.scrubber.record
    yield _counter("images_scrubbed", "Images whose data is gone", record.scrubbed)
    yield _histogram(
        "lateness_seconds",
        "From when images were due to when their last location was gone",
        record.lateness,
    )
    yield _labeled(
        CounterMetricFamily,
        "outcomes",
        "Locations whose claim was settled, by what became of them",
        ("store", "outcome", "reason"),
        {(_store(store), *rest): count for (store, *rest), count in record.outcomes.items()},
    )
    yield _labeled(
        CounterMetricFamily,
        "reclaimed_bytes",
        "Space that came free, by the images' size in the registry",
        ("store",),
        {(_store(store),): size for store, size in record.bytes_reclaimed.items()},
    )
    yield _labeled(
        CounterMetricFamily,
        "images_finished",
        "Images finished without a delete: their data stays, or no location was left",
        ("reason",),
        {(reason,): count for reason, count in record.finished.items()},
    )
    yield _labeled(
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
        yield _labeled(
            GaugeMetricFamily,
            name,
            help_text,
            ("store", "reason"),
            {
                (_store(group.store), group.reason): count
                for group, count in snapshot.troubles.items()
                if group.parked is parked
            },
        )
    yield _gauge("damaged_images", "Images found that only a person can judge", len(record.damaged))
    yield _gauge("claims", "Images claimed and not settled", len(sources.scrubber.leases.jobs))
    yield _gauge("unsettled", "Ended images not in the registry yet", len(sources.scrubber.settler))
    yield _counter("leases_lost", "Claims that ran out or were taken over", record.leases_lost)


def _bus(sources: Sources) -> Iterator[Metric]:
    dispatcher = sources.listener.dispatcher
    yield _gauge("bus_joined", "1 when the bus was joined", sources.listener.joined)
    yield _counter("events_received", "Notifications received", dispatcher.received)
    yield _counter("events_ignored", "Notifications of no concern", dispatcher.ignored)
    yield _labeled(
        CounterMetricFamily,
        "events_malformed",
        "Notifications that Glance would not send",
        ("reason",),
        {(reason,): count for reason, count in dict(dispatcher.malformed).items()},
    )
    yield _gauge(
        "last_event_timestamp_seconds", "When the last notification came", dispatcher.last_at
    )
    yield _counter(
        "missed_by_bus",
        "Images that a sweep found although the bus should have told an agent of them: this one, or"
        " another that was late with them",
        sources.scrubber.record.missed_by_bus,
    )


def _registry(sources: Sources) -> Iterator[Metric]:
    sweep = sources.sweep
    yield _gauge("registry_up", "1 while the registry answers", sources.registry_answers)
    yield _counter("sweeps", "Sweeps finished", sweep.count)
    yield _counter("sweep_adds", "Images that sweeps put into the queue", sweep.added)
    yield _gauge("last_sweep_timestamp_seconds", "When the last sweep finished", sweep.last_at)
    yield _gauge(
        "last_sweep_duration_seconds",
        "How long the last sweep took",
        None if sweep.last is None else sweep.last.seconds,
    )
    yield _gauge(
        "clock_ahead_seconds",
        "How far this host's clock is ahead of the database's",
        sources.database_clock.skew_seconds,
    )


def _counted_in_registry(space: Space | None) -> Iterator[Metric]:
    """What the registry holds, whichever agent asks it."""
    values: tuple[float | None, ...] = (None,) * len(_COUNTED)
    if space is not None:
        total, counted_at = space.total, time.time() - space.age_seconds
        values = (total.images, total.size_bytes, total.held, space.later, counted_at)
    for (name, help_text), value in zip(_COUNTED, values, strict=True):
        yield _gauge(name, help_text, value)


def _stores(sources: Sources) -> Iterator[Metric]:
    lanes: dict[tuple[str, ...], Lane] = {
        (_store(lane.name),): lane for lane in sources.scrubber.lanes
    }
    for name, help_text, value in (
        (
            "lane_ready",
            "Images that are due in the lane",
            lambda lane: ready(sources.queue, lane),
        ),
        ("lane_claimed", "Images claimed ahead of the workers", lambda lane: len(lane.backlog)),
        (
            "lane_owners_stopped",
            "Owners whose images fail one after another, and wait",
            lambda lane: len(lane.health.shut),
        ),
        (
            "lane_provable",
            "1 if live images told at last whether the store is the right one, 0 if it has none",
            lambda lane: math.nan if lane.missing.is_provable is None else lane.missing.is_provable,
        ),
        ("lane_running", "Images in work", lambda lane: lane.running),
        ("lane_concurrency_limit", "Images at a time, now", lambda lane: lane.pace.concurrent),
        (
            "lane_concurrency_max",
            "Images at a time, allowed",
            lambda lane: lane.pace.most_concurrent,
        ),
        ("lane_rate_limit", "Deletes a second now; 0 is no limit", lambda lane: lane.pace.rate),
        (
            "lane_rate_max",
            "Deletes a second allowed; 0 is no limit",
            lambda lane: lane.pace.most_rate,
        ),
    ):
        values: _Labeled = {key: float(value(lane)) for key, lane in lanes.items()}
        yield _labeled(GaugeMetricFamily, name, help_text, ("store",), values)
    yield _labeled(
        GaugeMetricFamily,
        "breaker_state",
        "1 for the state that the store's breaker is in",
        ("store", "state"),
        {
            (*key, state.value): lane.breaker.state is state
            for key, lane in lanes.items()
            for state in State
        },
    )

    proofs = sources.scrubber.witnesses.proofs
    yield _labeled(
        CounterMetricFamily,
        "proofs",
        "Questions for live images, asked when a store did not have an image's data",
        ("store", "result"),
        {(_store(store), result.value): count for (store, result), count in proofs.items()},
    )


def _limits(sources: Sources) -> Iterator[Metric]:
    settings = sources.scrubber.settings
    yield _gauge("concurrency_limit", "Images at a time, all stores", settings.concurrency)
    yield _gauge("rate_limit", "Deletes a second, all stores; 0 is no limit", settings.rate)
    yield _gauge(
        "scrub_time_seconds",
        "How long a deleted image's data is kept",
        settings.policy.scrub_time.total_seconds(),
    )


def _store(name: str) -> str:
    return name or NO_STORE


def _gauge(name: str, help_text: str, value: float | None) -> Metric:
    """A gauge; one that has no value yet has no sample."""
    family = GaugeMetricFamily(_PREFIX + name, help_text)
    if value is not None:
        family.add_metric((), value)
    return family


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, help_text, value)


def _labeled(
    family: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    help_text: str,
    labels: Iterable[str],
    values: _Labeled,
) -> Metric:
    metric = family(_PREFIX + name, help_text, labels=list(labels))
    for label_values, value in values.items():
        metric.add_metric(label_values, value)
    return metric


def _histogram(name: str, help_text: str, spread: Spread) -> Metric:
    sums = list(accumulate(spread.counts))
    bounds = [*(str(bound) for bound in spread.bounds), "+Inf"]
    return HistogramMetricFamily(
        _PREFIX + name,
        help_text,
        buckets=list(zip(bounds, sums, strict=True)),
        sum_value=spread.total_seconds,
    )
