# SPDX-License-Identifier: Apache-2.0
"""Format the state of agents for people: a row for each figure, agents side by side. Pure.

As many agents stand side by side as the width allows; the others follow below.
"""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from evscrub.domain.quoting import printable
from evscrub.domain.words import cells_wide, count, in_units, in_words
from evscrub.flow_control.circuit_breaker import State
from evscrub.status.group_report import GroupReport, SharingReport
from evscrub.status.report import AgentReport, StoreReport

_GAP = "  "
#: Widths in characters: the most for labels, and the least for an agent beside others. Longer texts
#: are wrapped.
_LABEL_MOST, _CELL_LEAST = 18, 18
_STATES = {
    State.CLOSED.value: "works",
    State.OPEN.value: "does not work",
    State.HALF_OPEN.value: "is probed",
    State.FORCED_OPEN.value: "PAUSED",
}


class Label(NamedTuple):
    """What a row is about; the store is empty for a figure of the whole agent."""

    store: str
    figure: str

    @property
    def text(self) -> str:
        if not self.store:
            return self.figure
        return f"  {self.figure}" if self.figure else f"store {printable(self.store)}"


#: Texts of one agent by label, in the order to show.
Cells = Mapping[Label, str]


def cells(report: AgentReport, problems: int) -> Cells:
    """Return what to show of an agent.

    :param problems: number of things that need an operator.
    """
    own = {
        "state": "needs an operator" if problems else "well",
        "host": f"{report.host}, process {report.pid}",
        "version": report.version,
        "waiting": f"{report.waiting:,}",
        "due": f"{report.due:,}" + _since(report.due, report.oldest_due_seconds, "oldest for"),
        "in work": f"{report.in_work:,}"
        + _since(report.in_work, report.longest_in_work_seconds, "longest for"),
        "scrubbed": f"{report.scrubbed:,}, {in_units(report.scrubbed_bytes)}",
        "late, median": _words(report.late_median_seconds),
        "late, 95 %": _words(report.late_p95_seconds),
        "parked": f"{report.parked:,}",
        "in use": f"{report.in_use:,}",
        "retrying": f"{report.retrying:,}",
        "damaged": f"{report.damaged:,}",
        "bus": _bus(report),
        "database": _database(report),
        "last sweep": _sweep(report),
        **_sharing(report.sharing),
    }
    shown = {Label("", figure): printable(text) for figure, text in own.items()}
    for store in report.stores:
        if store.name:
            of_store = _of_store(store).items()
            shown |= {Label(store.name, figure): printable(text) for figure, text in of_store}
    return shown


def render(agents: Mapping[str, Cells], width: int) -> Iterator[str]:
    """Yield the lines of a table of agents.

    :param agents: what to show of each agent, by the heading of its column.
    :param width: maximum length of a line in characters.
    """
    labels = _ordered(agents.values())
    label_width = min(_LABEL_MOST, max((cells_wide(label.text) for label in labels), default=0))
    left = dict(agents)
    while left:
        widths = _fitting_columns(left, width - label_width)
        sides = [label_width, *widths.values()]
        yield from _line(["agent", *widths], sides)
        yield _GAP.join("-" * side for side in sides)
        shown = [left.pop(name) for name in widths]
        for label in labels:
            if any(label in each for each in shown):
                yield from _line([label.text, *(each.get(label, "") for each in shown)], sides)
        if left:
            yield ""


def columns(rows: Iterable[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    """Yield the lines of a table, the first row of which are its heads.

    :param widths: width of each column in characters; longer texts are wrapped.
    """
    for number, row in enumerate(rows):
        yield from _line([printable(text) for text in row], widths)
        if not number:
            yield _GAP.join("-" * width for width in widths)


def _ordered(agents: Iterable[Cells]) -> list[Label]:
    """Return all labels, those of the agents themselves before those of each store."""
    known = dict.fromkeys(label for shown in agents for label in shown)
    places = {store: place for place, store in enumerate(dict.fromkeys(at.store for at in known))}
    return sorted(known, key=lambda label: places[label.store])


def _fitting_columns(agents: Mapping[str, Cells], room: int) -> dict[str, int]:
    """Return the widths of the first columns that fit, at least of one."""
    number = max(1, min(len(agents), room // (_CELL_LEAST + len(_GAP))))
    share = max(1, room // number - len(_GAP))
    return {
        name: min(share, max(map(cells_wide, [name, *shown.values()])))
        for name, shown in islice(agents.items(), number)
    }


def wrap(text: str, width: int) -> str:
    """Return a sentence in lines of at most `width` characters where words allow it."""
    return textwrap.fill(
        printable(text),
        width,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _of_store(store: StoreReport) -> dict[str, str]:
    limit = f", limit {store.rate_limit:.4g}/s" if store.rate_limit else ""
    # The last measured rate stays when nothing is left to do.
    rate = store.rate if store.running else 0.0
    return {
        "": "NOT USABLE" if store.fault else _STATES.get(store.breaker, store.breaker),
        "due": f"{store.ready:,}",
        "claimed": f"{store.claimed:,}",
        "running": f"{store.running:,} of {store.concurrency_limit:,}",
        "rate": f"{rate:.4g}/s{limit}",
    }


def _line(texts: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """Yield the lines of one row, whose texts are wrapped."""
    wrapped = [_wrapped(text, width) for text, width in zip(texts, widths, strict=True)]
    for number in range(max(map(len, wrapped))):
        parts = [lines[number] if number < len(lines) else "" for lines in wrapped]
        padded = (_pad(part, width) for part, width in zip(parts, widths, strict=True))
        yield _GAP.join(padded).rstrip()


def _wrapped(text: str, width: int) -> list[str]:
    lines: list[str] = []
    indent = text[: len(text) - len(text.lstrip())]
    for word in text.split():
        line = f"{lines[-1]} {word}" if lines else f"{indent}{word}"
        if lines and cells_wide(line) > width:
            line = word
        elif lines:
            lines.pop()
        while cells_wide(line) > width:
            start = _fitting(line, width)
            lines.append(line[:start])
            line = line[start:]
        lines.append(line)
    return lines or [""]


def _fitting(text: str, width: int) -> int:
    """Return how many characters of a text fit, at least 1."""
    taken = 0
    for number, character in enumerate(text):
        taken += cells_wide(character)
        if taken > width:
            return max(1, number)
    return len(text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - cells_wide(text))


def _since(number: int, seconds: float, what: str) -> str:
    return f", {what} {in_words(seconds)}" if number and seconds >= 1 else ""


def _words(seconds: float | None) -> str:
    return "-" if seconds is None else in_words(seconds)


def _ago(seconds: float | None) -> str:
    return "none yet" if seconds is None else f"{in_words(max(1.0, seconds))} ago"


def _bus(report: AgentReport) -> str:
    if not report.bus_joined:
        return "NOT JOINED"
    if report.bus_last_seconds is None:
        return "joined, nothing came yet"
    return f"joined, last event {_ago(report.bus_last_seconds)}"


def _database(report: AgentReport) -> str:
    if report.database_refuses_changes:
        return "TAKES NO CHANGES"
    if not report.database_answers:
        return "DOES NOT ANSWER"
    return "CLOCK IS DISPUTED" if report.clock_disputed_seconds is not None else "answers"


def _sweep(report: AgentReport) -> str:
    failing = "FAILS, " if report.sweep_failing else ""
    return failing + _ago(report.sweep_last_seconds)


def _sharing(sharing: SharingReport) -> dict[str, str]:
    consumers = "not known" if sharing.consumers is None else f"{sharing.consumers:,}"
    group = sharing.group
    if group is None:
        limits = "EACH AGENT BY ITSELF" if sharing.is_alone else "each agent by itself"
        return {"limits": limits, "agents on the bus": consumers}
    share = "waits for a share" if group.share == "0" else f"{group.share} of the group's"
    return {"limits": share, "group": _group(group), "agents on the bus": consumers}


def _group(group: GroupReport) -> str:
    if group.contact_seconds is None:
        return f"{group.name}, COORDINATOR NOT REACHED YET"
    members = f"{group.name}, {count(group.size, 'member')}"
    if group.state == "coordinator away":
        return f"{members}, COORDINATOR AWAY, last {_ago(group.contact_seconds)}"
    return members


def problem_lines(agent: str, problems: Iterable[str], width: int) -> Iterator[str]:
    """Yield what needs an operator, wrapped, each with the agent that says so."""
    for problem in problems:
        yield wrap(f"{agent}: {problem}", width)
