# SPDX-License-Identifier: Apache-2.0
"""Statistics of a scrubber."""

from collections.abc import Mapping
from dataclasses import dataclass

from evscrub.config.settings import Settings
from evscrub.domain.proof import ProofResult
from evscrub.registry.gateway import GatewayStatistics
from evscrub.scrubbing.lane import LaneStatistics
from evscrub.scrubbing.lease_keeper import LeaseStatistics
from evscrub.telemetry.statistics import RecordStatistics


@dataclass(frozen=True, slots=True)
class ScrubberStatistics:
    """The parts of a scrubber at one moment.

    :param settings: the settings in force, for this agent's share of the limits.
    :param configured: the settings as configured, for the group where limits are shared.
    :param lanes: statistics of each lane.
    :param running: workers of all lanes.
    :param unsettled: ended jobs whose result is not in the registry.
    :param put_off: those of them whose rows another transaction has locked.
    :param proofs: number of proofs, by store and result.
    """

    settings: Settings
    configured: Settings
    record: RecordStatistics
    lanes: tuple[LaneStatistics, ...]
    running: int
    leases: LeaseStatistics
    unsettled: int
    put_off: int
    registry: GatewayStatistics
    proofs: Mapping[tuple[str, ProofResult], int]
