# SPDX-License-Identifier: Apache-2.0
"""Format the members of groups for people. Pure.

Agents of a group usually see the same members; they share one table. Where they do not, each view
has a table, and the difference is seen.
"""

from collections.abc import Iterator, Mapping

from evscrub.commands import status_table
from evscrub.domain.words import count, in_words
from evscrub.status.group_report import GroupReport, MemberReport
from evscrub.status.report import AgentReport

_HEADS = ("member", "share", "last seen")
_SHARE_WIDTH, _SEEN_WIDTH = 13, 18
_GAP_WIDTH = 2
_LEAST_ID_WIDTH = 20


def lines(agents: Mapping[str, AgentReport], width: int) -> Iterator[str]:
    """Yield the lines of a table for each group, or view of it.

    :param agents: by what to call them.
    :param width: maximum length of a line in characters.
    """
    views: dict[tuple[object, ...], dict[str, GroupReport]] = {}
    for agent, report in agents.items():
        group = report.sharing.group
        if group is not None and group.members:
            members = ((one.id, one.share, one.is_present) for one in group.members)
            key = (group.name, *sorted(members, key=str))
            views.setdefault(key, {})[agent] = group
    for seen_by in views.values():
        yield ""
        yield from _table(seen_by, width)


def _table(seen_by: Mapping[str, GroupReport], width: int) -> Iterator[str]:
    group = next(iter(seen_by.values()))
    title = f"group {group.name}: {count(group.size, 'member')}, seen by {', '.join(seen_by)}"
    yield status_table.wrap(title, width)
    names = {
        one.id: agent for agent, each in seen_by.items() for one in each.members if one.is_self
    }
    latest = {
        one.id: min(
            (same for each in seen_by.values() for same in each.members if same.id == one.id),
            key=lambda same: same.last_seen_seconds,
        )
        for one in group.members
    }
    rows = [
        (
            f"{one.id} ({names[one.id]})" if one.id in names else one.id,
            _share(one),
            _seen(one),
        )
        for one in sorted(latest.values(), key=lambda one: (not one.is_present, one.id))
    ]
    room = max(_LEAST_ID_WIDTH, width - _SHARE_WIDTH - _SEEN_WIDTH - 2 * _GAP_WIDTH)
    id_width = min(room, max(len(row[0]) for row in rows))
    yield from status_table.columns((_HEADS, *rows), (id_width, _SHARE_WIDTH, _SEEN_WIDTH))


def _share(member: MemberReport) -> str:
    if not member.is_present:
        return "-"
    if member.share is None:
        return "not readable"
    return "none yet" if member.share == "0" else member.share


def _seen(member: MemberReport) -> str:
    ago = (
        f"{in_words(round(member.last_seen_seconds))} ago" if member.last_seen_seconds >= 1 else ""
    )
    return (ago or "now") if member.is_present else f"left, {ago or 'just now'}"
