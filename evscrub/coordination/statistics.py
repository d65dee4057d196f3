# SPDX-License-Identifier: Apache-2.0
"""What an agent knows of its group."""

import enum
from dataclasses import dataclass
from fractions import Fraction


class GroupState(enum.Enum):
    """How an agent stands with the coordinator."""

    JOINING = "joining"  #: it has not reached the coordinator since it started
    MEMBER = "member"
    AWAY = "coordinator away"  #: it was a member, and the coordinator cannot be reached


@dataclass(frozen=True, slots=True)
class MemberSeen:
    """A member of the group, as this agent last read it.

    :param member_id: ``HOST:PID:RANDOM``.
    :param share: the published part of the limits; None if it cannot be read.
    :param last_seen_at: when it was last found in the group, seconds since the epoch by this host.
    :param is_present: whether it was in the group at the last contact.
    :param is_self: whether it is this agent.
    """

    member_id: str
    share: Fraction | None
    last_seen_at: float
    is_present: bool
    is_self: bool


@dataclass(frozen=True, slots=True)
class GroupStatistics:
    """The group of an agent at one moment.

    :param group: name of the group at the coordinator.
    :param share: part of the limits that this agent may use; 0 while it waits for one.
    :param members: the members, this agent first, then by id; those that left follow for a while.
    :param contact_at: when the coordinator last answered, seconds since the epoch; None if never.
    """

    group: str
    state: GroupState
    share: Fraction
    members: tuple[MemberSeen, ...]
    contact_at: float | None

    @property
    def size(self) -> int:
        """Number of members at the last contact."""
        return sum(member.is_present for member in self.members)
