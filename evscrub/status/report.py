# SPDX-License-Identifier: Apache-2.0
"""Read ``/status`` of an agent, and decide what in it needs an operator. Pure.

The answer is not trusted, see :mod:`evscrub.status.fields`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evscrub.domain.words import count, in_words
from evscrub.flow_control.circuit_breaker import State
from evscrub.status import fields, group_report
from evscrub.status.fields import seconds, text, whole
from evscrub.status.group_report import SharingReport


@dataclass(frozen=True, slots=True)
class StoreReport:
    """A store's lane in an agent; rates in deletes a second, 0 for no limit.

    :param breaker: ``closed``, ``open``, ``probing`` or ``blown``, which is paused.
    :param reason: why the breaker is not closed.
    :param fault: why the store cannot be used; empty if it can.
    :param ready: due images that are not claimed.
    :param claimed: claimed images that wait for a worker.
    :param running: workers.
    :param rate: measured recently.
    :param owners_stopped: projects whose images fail while those of others do not.
    """

    name: str
    breaker: str
    reason: str
    fault: str
    ready: int
    claimed: int
    running: int
    concurrency_limit: int
    concurrency_max: int
    rate: float
    rate_limit: float
    rate_max: float
    owners_stopped: int

    @property
    def is_paused(self) -> bool:
        """Whether the store is paused until an operator repairs it."""
        return self.breaker == State.FORCED_OPEN.value


@dataclass(frozen=True, slots=True)
class AgentReport:
    """The state of an agent.

    :param waiting: images in its memory that are not due and have not failed.
    :param due: images that are due and not in work.
    :param in_work: claimed images whose first delete has begun.
    :param longest_in_work_seconds: age of the longest-running scrub.
    :param oldest_due_seconds: time since the oldest due image was due, or ready for its next try.
    :param late_median_seconds: of the last 1000 images scrubbed; None if there are none.
    :param late_p95_seconds: the same, of the 95th in a hundred.
    :param bus_last_seconds: time since the last notification; None before the first.
    :param sweep_last_seconds: time since the last sweep ended; None before that.
    :param clock_disputed_seconds: how far the database's clock is from the estimate if it is
        disputed, so that nothing is claimed; else None.
    :param sharing: how it shares its limits with other agents.
    """

    host: str
    pid: int
    version: str
    waiting: int
    due: int
    in_work: int
    longest_in_work_seconds: float
    oldest_due_seconds: float
    scrubbed: int
    scrubbed_bytes: int
    late_median_seconds: float | None
    late_p95_seconds: float | None
    parked: int
    in_use: int
    retrying: int
    damaged: int
    bus_joined: bool
    bus_last_seconds: float | None
    sweep_failing: bool
    sweep_last_seconds: float | None
    database_answers: bool
    database_refuses_changes: bool
    clock_ahead_seconds: float
    clock_disputed_seconds: float | None
    sharing: SharingReport
    stores: tuple[StoreReport, ...]


def read(found: Mapping[str, Any]) -> AgentReport:
    """Return the report in the content of ``/status``.

    :raises UnreadableError: a field is missing or is not what it should be.
    """
    agent, queue, done = (fields.mapping(found, name) for name in ("agent", "queue", "done"))
    late, bus, sweep = (fields.mapping(found, name) for name in ("lateness", "bus", "sweep"))
    registry = fields.mapping(found, "registry")
    parked, in_use, damaged = (
        whole(fields.mapping(found, kind), "total") for kind in ("parked", "in_use", "damaged")
    )
    in_work = whole(queue, "in_work")
    return AgentReport(
        host=text(agent, "host"),
        pid=whole(agent, "pid"),
        version=text(agent, "version"),
        waiting=whole(queue, "waiting"),
        due=max(0, whole(queue, "ready") + whole(queue, "taken") - in_work),
        in_work=in_work,
        longest_in_work_seconds=seconds(queue, "longest_in_work"),
        oldest_due_seconds=seconds(queue, "oldest_due_age"),
        scrubbed=whole(done, "images"),
        scrubbed_bytes=whole(done, "bytes"),
        late_median_seconds=fields.optional(seconds, late, "median"),
        late_p95_seconds=fields.optional(seconds, late, "p95"),
        parked=parked,
        in_use=in_use,
        retrying=sum(whole(group, "images") for group in fields.mappings(found, "retrying")),
        damaged=damaged,
        bus_joined=fields.flag(bus, "joined"),
        bus_last_seconds=fields.optional(seconds, bus, "last_age"),
        sweep_failing=fields.flag(sweep, "failing"),
        sweep_last_seconds=fields.optional(seconds, sweep, "last_age"),
        database_answers=fields.flag(registry, "answers"),
        database_refuses_changes=fields.flag(registry, "refuses_changes"),
        clock_ahead_seconds=fields.offset(registry, "clock_ahead"),
        clock_disputed_seconds=fields.optional(fields.offset, registry, "clock_disputed"),
        sharing=group_report.read(fields.mapping(found, "sharing")),
        stores=tuple(map(_store, fields.mappings(found, "stores"))),
    )


def problems(report: AgentReport) -> Iterator[str]:
    """Yield what needs an operator, a sentence each; nothing if all is well."""
    for store in report.stores:
        yield from _store_problems(store)
    if report.parked:
        yield (
            f"{count(report.parked, 'image is', 'images are')} parked: 'evscrub list --parked'"
            " shows why; after a repair, 'evscrub retry --all' retries them at once"
        )
    if report.damaged:
        yield (
            f"{count(report.damaged, 'image is', 'images are')} damaged and left alone: 'evscrub"
            " list' shows them; 'evscrub restore' brings back one that should live"
        )
    if report.database_refuses_changes:
        yield "the database takes no changes from it"
    elif not report.database_answers:
        yield "the database does not answer it"
    if (disputed := report.clock_disputed_seconds) is not None:
        side = "ahead of" if disputed > 0 else "behind"
        yield (
            f"it claims nothing, because the database's clock is {in_words(abs(disputed))} {side}"
            " its estimate: let NTP set the clocks of all database nodes and of its host"
        )
    if not report.bus_joined:
        yield "it has not joined the bus: only sweeps find due images"
    if report.sweep_failing:
        yield "its sweeps of the registry fail, see its log: it finds only what the bus announces"
    yield from group_report.problems(report.sharing)


def in_plain_words(reason: str) -> str:
    """Return a reason in words: some are codes with underscores, others sentences with paths."""
    return reason if " " in reason else reason.replace("_", " ")


def _store_problems(store: StoreReport) -> Iterator[str]:
    name = f"store {store.name}" if store.name else "no store"
    waiting = count(store.ready + store.claimed, "image waits", "images wait")
    reason = in_plain_words(store.reason)
    if store.fault:
        yield f"{name} cannot be used: {store.fault}. Loading it is tried every minute"
    elif store.is_paused:
        yield (
            f"{name} is paused: {reason}; {waiting}. Repair it and send the agent SIGHUP, which"
            " alone resumes it"
        )
    elif store.breaker != State.CLOSED.value:
        yield (
            f"{name} does not work: {reason}; {waiting}. The agent probes it from time to time, and"
            f" at once on 'evscrub retry --store {store.name}'"
        )
    if store.owners_stopped:
        yield (
            f"{count(store.owners_stopped, 'project is', 'projects are')} stopped in {name},"
            " because image after image of them fails: the agent's log names them"
        )


def _store(found: Mapping[str, Any]) -> StoreReport:
    return StoreReport(
        name=text(found, "name"),
        breaker=text(found, "breaker"),
        reason=text(found, "reason"),
        fault=text(found, "fault"),
        ready=whole(found, "ready"),
        claimed=whole(found, "claimed"),
        running=whole(found, "running"),
        concurrency_limit=whole(found, "concurrent"),
        concurrency_max=whole(found, "most_concurrent"),
        rate=fields.number(found, "per_second"),
        rate_limit=fields.number(found, "rate"),
        rate_max=fields.number(found, "most_rate"),
        owners_stopped=whole(found, "owners_stopped"),
    )
