# SPDX-License-Identifier: Apache-2.0
"""Show the state of agents: ``evscrub status``."""

import argparse
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import yaml

from evscrub.commands import asking, members_table, status_table
from evscrub.domain.address import Address
from evscrub.domain.quoting import printable
from evscrub.status import client, report
from evscrub.status.client import NoAnswerError
from evscrub.status.fields import UnreadableError
from evscrub.status.report import AgentReport
from evscrub.telemetry import output

_TERMINAL = (80, 24)
_WELL, _ATTENTION, _NO_ANSWER = "well", "attention", "no_answer"
#: Fields of a line of ``-f value``, in their order; others are added at the end.
#: The formatter would put each on a line of its own.
_VALUES = (
    "agent", "state", "waiting", "due", "in_work", "oldest_due_seconds", "parked", "retrying",
    "in_use", "damaged", "bus_joined", "database_answers",
)  # fmt: skip

Answers = Mapping[Address, AgentReport | NoAnswerError]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show the state of one or several agents, side by side: images that wait, are due, in work"
        " and stuck, how late they are, bus, database and sweep, the group that shares the limits"
        " and its members, and the lane of each store. What needs an operator follows in words,"
        " with what to do."
    )
    parser.epilog = (
        "Exit codes: 0 all is well, 1 something needs an operator or an agent does not answer, 2 no"
        " agent answers, or wrong usage, 78 the configuration is wrong."
    )
    asking.add_arguments(parser)
    parser.add_argument(
        "-f",
        "--format",
        dest="formatter",
        choices=["json", "table", "value", "yaml"],
        default="table",
        help="the output format, defaults to table; json is one line, value one line an agent",
    )


def main(arguments: argparse.Namespace) -> int:
    answers = asking.ask(asking.agents(arguments), _report)
    for answer in answers.values():
        if isinstance(answer, NoAnswerError):
            output.say(str(answer))
    with output.reader_may_leave():
        for line in _FORMATS[arguments.formatter](answers):
            print(line)
    return exit_code(answers)


def exit_code(answers: Answers) -> int:
    """Return 0 if all is well, 1 if something needs an operator, 2 if no agent answers."""
    silent = sum(isinstance(answer, NoAnswerError) for answer in answers.values())
    if silent == len(answers):
        return 2
    stuck = any(
        any(report.problems(answer))
        for answer in answers.values()
        if isinstance(answer, AgentReport)
    )
    return 1 if silent or stuck else 0


def _report(address: Address) -> AgentReport:
    found = client.status(address)
    try:
        return report.read(found)
    except UnreadableError as error:
        raise NoAnswerError(
            f"cannot read the status of the agent on {address}: {error}; is it of another release?"
        ) from None


def described(address: Address, answer: AgentReport | NoAnswerError) -> dict[str, Any]:
    """Return what the formats for machines show of an agent; ``etc/docs/status.rst`` lists it."""
    if isinstance(answer, NoAnswerError):
        return {"agent": str(address), "state": _NO_ANSWER, "problems": [], "error": str(answer)}
    problems = list(report.problems(answer))
    return {
        "agent": str(address),
        "state": _ATTENTION if problems else _WELL,
        "problems": problems,
        "error": None,
        **asdict(answer),
    }


def _json(answers: Answers) -> Iterable[str]:
    yield json.dumps([described(*each) for each in answers.items()])


def _yaml(answers: Answers) -> Iterable[str]:
    shown = [described(*each) for each in answers.items()]
    # Through JSON, because YAML has a notation of its own for tuples.
    yield yaml.safe_dump(json.loads(json.dumps(shown)), sort_keys=False).rstrip()


def _value(answers: Answers) -> Iterable[str]:
    for each in answers.items():
        shown = described(*each)
        yield " ".join(printable(_plain(shown.get(name))) for name in _VALUES)


def _plain(value: object) -> str:
    return "-" if value is None else str(value)


def _table(answers: Answers) -> Iterable[str]:
    width = shutil.get_terminal_size(_TERMINAL).columns
    problems = {
        str(address): list(report.problems(answer))
        for address, answer in answers.items()
        if isinstance(answer, AgentReport)
    }
    shown = {
        str(address): status_table.cells(answer, len(problems[str(address)]))
        for address, answer in answers.items()
        if isinstance(answer, AgentReport)
    }
    yield from status_table.render(shown, width)
    yield from members_table.lines(
        {
            str(address): answer
            for address, answer in answers.items()
            if isinstance(answer, AgentReport)
        },
        width,
    )
    if any(problems.values()):
        yield ""
        for agent, said in problems.items():
            yield from status_table.problem_lines(agent, said, width)


_FORMATS = {"json": _json, "table": _table, "value": _value, "yaml": _yaml}
