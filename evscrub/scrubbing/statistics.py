# SPDX-License-Identifier: Apache-2.0
"""What a scrubber tells of its parts."""

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
    """The scrubber's parts at one moment.

    :param lanes: of each store that has one.
    :param running: workers of all stores.
    :param unsettled: ended jobs whose result is not in the registry yet.
    :param proofs: questions for live images, by store and result.
    """

    settings: Settings
    record: RecordStatistics
    lanes: tuple[LaneStatistics, ...]
    running: int
    leases: LeaseStatistics
    unsettled: int
    registry: GatewayStatistics
    proofs: Mapping[tuple[str, ProofResult], int]
