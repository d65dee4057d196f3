# SPDX-License-Identifier: Apache-2.0
"""The parts of an agent that its status is read from, beside an empty registry in memory."""

from datetime import timedelta
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

from evscrub.config.settings import Settings
from evscrub.coordination.member import GroupMember
from evscrub.coordination.statistics import GroupState, GroupStatistics, MemberSeen
from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.domain.decisions import Policy
from evscrub.domain.evidence import Origin
from evscrub.domain.retry_policy import Delays
from evscrub.domain.verdict import GONE, Outcome, Verdict
from evscrub.flow_control.circuit_breaker import FAILURES
from evscrub.intake.listener import Listener, ListenerStatistics
from evscrub.intake.sweep import Sweep, SweepReport, SweepStatistics
from evscrub.queueing.delay_queue import DelayQueue
from evscrub.registry.claims import Claims
from evscrub.registry.database import Database
from evscrub.scrubbing.context import Context
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.status.snapshot import Sources
from evscrub.stores.backends import Stores
from evscrub.telemetry.statistics import Trouble

NOW = 1_800_000_000.0
SETTINGS = Settings(
    policy=Policy(timedelta(hours=1), timedelta(minutes=2)),
    concurrency=16,
    rate=0,
    burst=1,
    batch_size=100,
    delays=Delays(initial=5, longest=600, in_use=1800, parked=3600),
    horizon_seconds=7200,
)


class FakeClock(Clock):
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.time = NOW
        super().__init__(boot=lambda: self.time, wall=lambda: self.time)


class Saying:
    """A part whose statistics are given."""

    def __init__(self, statistics: object) -> None:
        self.given = statistics

    def statistics(self) -> object:
        return self.given


def make_group(
    *shares: str | None,
    state: GroupState = GroupState.MEMBER,
    contact_at: float | None = NOW,
    gone: int = 0,
) -> GroupStatistics:
    """Return a group of members with these shares, the agent itself first.

    :param gone: how many of the members, from the last, have left.
    """
    members = [
        MemberSeen(
            f"controller{number}:{4000 + number}:{number:08x}",
            None if share is None else Fraction(share),
            NOW - number * 60 * (number >= len(shares) - gone),
            is_present=number < len(shares) - gone,
            is_self=not number,
        )
        for number, share in enumerate(shares)
    ]
    own = Fraction(0) if not members or members[0].share is None else members[0].share
    return GroupStatistics("evscrub.default", state, own, tuple(members), contact_at)


def make_sources(
    clock: Clock,
    group: GroupStatistics | None = None,
    consumers: int | None = None,
    settings: Settings = SETTINGS,
) -> Sources:
    """Parts of an agent that has done nothing yet."""
    queue = DelayQueue(1000, origin=NOW)
    stores = cast(
        "Stores",
        SimpleNamespace(
            url=str,
            encrypted=False,
            names=["fast", "slow"],
            schemes={"fast": ("file",), "slow": ("file",)},
            deletable=[],
            faults={},
            resolve=str,
        ),
    )
    database_clock = DatabaseClock(clock)
    claims = Claims(cast("Database", SimpleNamespace()))
    context = Context.create(settings, claims.database, database_clock)
    scrubber = Scrubber(queue, claims, stores, context)
    return Sources(
        queue,
        scrubber,
        cast("Listener", Saying(ListenerStatistics(True, 0, 0, {}, None))),
        cast("Sweep", Saying(SweepStatistics(0, 0, False, None, None))),
        stores,
        cast("Database", SimpleNamespace()),
        clock,
        database_clock,
        None if group is None else cast("GroupMember", Saying(group)),
        lambda: consumers,
    )


def trouble(outcome: Outcome, reason: str, **fields: Any) -> Trouble:
    """An image's trouble, parked or not."""
    values: dict[str, Any] = {"tries": 1, "parked": False, "store": "fast", "owner": "somebody"}
    return Trouble(Verdict(outcome, reason, "Detail"), **(values | fields))


def make_busy(sources: Sources) -> None:
    """Let the parts look as if they had done something of everything."""
    record, queue = sources.scrubber._record, sources.queue
    for number in range(10):
        queue.add(f"due-{number}", NOW - 60 - number, owner="a", lane="fast")
        queue.add(f"waits-{number}", NOW + 100 * number + 1, owner=f"owner {number}")
    queue.advance(NOW)
    queue.take("fast", 2)
    record.scrubbed = 7
    record.retries = 3
    record.missed_by_bus = 1
    record.leases_lost = 2
    record.outcomes["fast", "gone", "deleted"] = 6
    record.outcomes["fast", "gone", "not_found"] = 2
    record.outcomes["", "configuration", "bad_url"] = 1
    record.bytes_reclaimed["fast"] = 6000
    record.left_alone["alive"] = 4
    for seconds in (0.05, 0.3, 400):
        record.late_seconds.append(seconds)
        record.lateness.add(seconds)
    record.queued.add(0.2)
    record.worked.add(2)
    record.failed("p1", trouble(Outcome.CONFIGURATION, "bad_url", parked=True, store=""))
    record.failed("p2", trouble(Outcome.UNKNOWN, "unexpected", parked=True, tries=9))
    record.failed("u1", trouble(Outcome.IN_USE, "in_use"))
    record.failed("r1", trouble(Outcome.TRANSIENT, "timeout"))
    for name in ("p1", "p2", "r1"):
        queue.add(name, NOW + 3000)
    record.damaged["d1"] = "the image is active but has no live location left"
    lane = sources.scrubber._lanes.of("fast")
    lane.breaker.force_open("its directory is missing")
    slow = sources.scrubber._lanes.of("slow")
    slow.pace.troubled(NOW)
    for owner in ("a", "b"):
        slow.answered(GONE, Origin(owner, ""), NOW)
    for _ in range(FAILURES):
        slow.answered(Verdict(Outcome.UNKNOWN, "unexpected"), Origin("somebody", ""), NOW)
    cast("Saying", sources.listener).given = ListenerStatistics(
        joined=True, received=12, ignored=2, malformed={"no owner": 1}, last_at=NOW - 3
    )
    cast("Saying", sources.sweep).given = SweepStatistics(
        count=2,
        added=20,
        failing=False,
        last_at=NOW - 30,
        last=SweepReport(full=True, found=20, added=20, seconds=0.5),
    )
