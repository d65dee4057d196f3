# SPDX-License-Identifier: Apache-2.0
"""The group of agents that share their limits, as JSON values and as metrics."""

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import Metric

from evscrub.coordination.statistics import GroupState, GroupStatistics
from evscrub.status.families import gauge
from evscrub.status.snapshot import AgentStatistics

Json = dict[str, Any]


def sharing(statistics: AgentStatistics) -> Json:
    """Return how the agent shares its limits with others, for the page.

    ``is_alone`` is whether the agents should share limits but do not: a rate is limited, more than
    one agent consumes from the bus, and each keeps to the rate for itself.
    """
    group, consumers = statistics.group, statistics.consumers
    configured = statistics.scrubber.configured
    return {
        "group": None if group is None else _group(group, statistics.at.wall),
        "consumers": consumers,
        "is_alone": group is None and bool(configured.rate_options) and (consumers or 0) > 1,
        "limits": {
            "concurrency": configured.concurrency,
            "rate": configured.rate,
            "owner_rate": configured.owner_rate,
        },
    }


def metrics(statistics: AgentStatistics) -> Iterator[Metric]:
    """Yield the metrics; those of the group have no sample without one."""
    group = statistics.group
    yield gauge(
        "bus_consumers",
        "Agents that consume from the bus, as the broker counts; absent if it does not tell",
        statistics.consumers,
    )
    yield gauge(
        "group_members",
        "Members of the group that shares the limits, at the last contact with the coordinator",
        None if group is None else group.size,
    )
    yield gauge(
        "group_share_ratio",
        "Part of the group's limits that this agent may use; 0 while it waits for one",
        None if group is None else float(group.share),
    )
    yield gauge(
        "group_coordinator_up",
        "1 while the coordinator answers",
        None if group is None else group.state is GroupState.MEMBER,
    )
    yield gauge(
        "group_contact_timestamp_seconds",
        "Time when the coordinator last answered and the members were read",
        None if group is None else group.contact_at,
    )


def _group(group: GroupStatistics, wall: float) -> Json:
    return {
        "name": group.group,
        "state": group.state.value,
        "share": str(group.share),
        "part": float(group.share),
        "size": group.size,
        "contact_age": None if group.contact_at is None else wall - group.contact_at,
        "members": [
            {
                "id": member.member_id,
                "share": None if member.share is None else str(member.share),
                "age": wall - member.last_seen_at,
                "is_present": member.is_present,
                "is_self": member.is_self,
            }
            for member in group.members
        ],
    }
