# SPDX-License-Identifier: Apache-2.0
"""Read how an agent shares its limits from ``/status``, and what of it needs an operator. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evscrub.domain.words import count, in_words
from evscrub.status import fields

#: States of a group as ``/status`` has them.
_JOINING, _AWAY = "joining", "coordinator away"
_NOTHING = "0"


@dataclass(frozen=True, slots=True)
class MemberReport:
    """A member of a group, as an agent last saw it.

    :param share: part of the limits that it published, such as ``1/3``; None if that is not known.
    :param is_present: whether it was a member at the last contact.
    :param is_self: whether it is the agent that reports.
    """

    id: str
    share: str | None
    last_seen_seconds: float
    is_present: bool
    is_self: bool


@dataclass(frozen=True, slots=True)
class GroupReport:
    """A group of agents that share their limits.

    :param state: ``joining`` before the first contact, ``member``, or ``coordinator away``.
    :param share: part of the limits that the agent may use, such as ``1/3``; ``0`` for none yet.
    :param size: number of members at the last contact.
    :param contact_seconds: time since the coordinator last answered; None if it never did.
    """

    name: str
    state: str
    share: str
    size: int
    contact_seconds: float | None
    members: tuple[MemberReport, ...]


@dataclass(frozen=True, slots=True)
class SharingReport:
    """How an agent shares its limits with others.

    :param group: None if each agent has its limits for itself.
    :param consumers: agents that consume from the bus; None if that is not known.
    :param is_alone: whether it should share a limit with others and does not.
    """

    group: GroupReport | None
    consumers: int | None
    is_alone: bool


def read(found: Mapping[str, Any]) -> SharingReport:
    """Return the report in ``sharing`` of ``/status``.

    :raises UnreadableError: a field is missing or is not what it should be.
    """
    consumers = fields.optional(fields.whole, found, "consumers")
    is_grouped = "group" not in found or found["group"] is not None
    return SharingReport(
        group=_group(fields.mapping(found, "group")) if is_grouped else None,
        consumers=None if consumers is None else int(consumers),
        is_alone=fields.flag(found, "is_alone"),
    )


def problems(report: SharingReport) -> Iterator[str]:
    """Yield what needs an operator, a sentence each."""
    if report.is_alone:
        yield (
            f"each agent by itself: each of the {report.consumers} agents that consume from the bus"
            " has its rates for itself. Set [coordination] backend_url for all of them, or divide"
            " the rates by their number"
        )
    group = report.group
    if group is None:
        return
    waits = group.share == _NOTHING
    if group.state == _JOINING:
        yield (
            "the coordinator has not answered since it started, see its log and 'evscrub check': it"
            + (" scrubs nothing yet" if waits else f" uses {group.share} of the limits")
        )
    elif group.state == _AWAY:
        since = "" if group.contact_seconds is None else f" for {in_words(group.contact_seconds)}"
        yield (
            f"the coordinator has not answered{since}, see its log and 'evscrub check': it"
            + (" scrubs nothing" if waits else f" uses {group.share} of the limits")
        )
    elif report.consumers is not None and group.size < report.consumers:
        yield (
            f"its group has {count(group.size, 'member')}, but {report.consumers} agents consume"
            " from the bus: 'evscrub check' names likely causes"
        )
    if any(one.is_present and one.share is None for one in group.members):
        yield (
            f"a member of the group {group.name} publishes no share that it can read: is it of"
            " another release?"
        )


def _group(found: Mapping[str, Any]) -> GroupReport:
    return GroupReport(
        name=fields.text(found, "name"),
        state=fields.text(found, "state"),
        share=fields.text(found, "share"),
        size=fields.whole(found, "size"),
        contact_seconds=fields.optional(fields.seconds, found, "contact_age"),
        members=tuple(map(_member, fields.mappings(found, "members"))),
    )


def _member(found: Mapping[str, Any]) -> MemberReport:
    is_known = "share" not in found or found["share"] is not None
    return MemberReport(
        id=fields.text(found, "id"),
        share=fields.text(found, "share") if is_known else None,
        last_seen_seconds=fields.seconds(found, "age"),
        is_present=fields.flag(found, "is_present"),
        is_self=fields.flag(found, "is_self"),
    )
