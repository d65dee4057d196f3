# SPDX-License-Identifier: Apache-2.0
"""The metrics of what the registry holds, whichever agent reports it.

Their names begin with ``evscrub_registry_``. The registry is the same for all agents, so these are
not added up: the figure of a deployment is the maximum over its agents. Agents count the registry
at different times, and each learns of failed and damaged images by itself, so they may differ for
a while.

While its database does not answer, an agent has no samples of them: what it knew may be outdated.
"""

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from evscrub.status.families import gauge, labeled, store_label
from evscrub.status.registry_count import RegistryCount
from evscrub.status.snapshot import AgentStatistics, Snapshot
from evscrub.telemetry.statistics import TroubleState

#: Metrics of the last count, and their help.
_COUNTED: tuple[tuple[str, str, Callable[[RegistryCount], float]], ...] = (
    (
        "registry_pending_images",
        "Pending images in the registry, with those that are claimed, held or have failed",
        lambda count: count.total.images,
    ),
    (
        "registry_due_images",
        "Pending images in the registry that are due, with those that are claimed or have failed",
        lambda count: count.due,
    ),
    (
        "registry_later_images",
        "Pending images in the registry that are due beyond the sweeps' horizon",
        lambda count: count.later,
    ),
    (
        "registry_held_images",
        "Pending images in the registry that are held",
        lambda count: count.total.held,
    ),
)
#: Metrics of failed images, their help, and the state that they count.
_FAILED = (
    (
        "registry_parked_images",
        "Images in the registry that failed and need an operator",
        TroubleState.PARKED,
    ),
    (
        "registry_in_use_images",
        "Images in the registry whose data is used by clones or snapshots",
        TroubleState.IN_USE,
    ),
)


def collect(
    statistics: AgentStatistics, snapshot: Snapshot, count: RegistryCount | None
) -> Iterator[Metric]:
    """Yield the metrics, without samples while the database does not answer.

    :param count: the latest count of the registry; None before the first.
    """
    is_known = not statistics.scrubber.registry.is_away
    counted = count if is_known else None
    for name, help_text, value in _COUNTED:
        yield gauge(name, help_text, None if counted is None else value(counted))
    space = None if counted is None else counted.space
    yield labeled(
        GaugeMetricFamily,
        "registry_pending_bytes",
        "Sizes of the pending images in the registry, by store: an image's size counts for each of"
        " its locations",
        ("store",),
        {} if space is None else {(store_label(name),): n for name, n in space.stores.items()},
    )
    for name, help_text, latest in (
        (
            "registry_counted_timestamp_seconds",
            "Time of this agent's last count of pending, due, later and held images",
            counted,
        ),
        (
            "registry_bytes_counted_timestamp_seconds",
            "Time of this agent's last count of pending bytes",
            space,
        ),
    ):
        at = None if latest is None else statistics.at.wall - (statistics.at.boot - latest.at)
        yield gauge(name, help_text, at)
    for name, help_text, state in _FAILED:
        failed = failed_images(snapshot, state) if is_known else {}
        yield labeled(GaugeMetricFamily, name, help_text, ("store", "reason"), failed)
    yield gauge(
        "registry_damaged_images",
        "Images in the registry that are damaged and need an operator's decision",
        statistics.scrubber.record.damaged if is_known else None,
    )


def failed_images(snapshot: Snapshot, state: TroubleState) -> dict[tuple[str, ...], float]:
    """Return how many failed images are in a state, by store and reason."""
    groups = snapshot.troubles.of_state(state)
    return {(store_label(group.store), group.reason): images for group, images in groups.items()}
