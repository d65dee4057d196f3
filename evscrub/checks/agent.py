# SPDX-License-Identifier: Apache-2.0
"""Checks of running agents, which know more than the registry does."""

from collections.abc import Mapping

from evscrub.checks.report import Findings
from evscrub.checks.subject import Subject
from evscrub.config.settings import status_address
from evscrub.domain.address import Address
from evscrub.domain.quoting import printable
from evscrub.domain.words import count
from evscrub.status import client, fields, report
from evscrub.status.report import AgentReport

#: Options that must be the same on all agents, and what the smallest value causes.
_ALIKE = {
    "scrub_time": "data is deleted after the shortest",
    "claim_timeout": "with a shorter one, an agent may take over claims that are still in use",
}


def agents(subject: Subject) -> Findings:
    """Ask agents for what needs an operator, and for their settings."""
    found = Findings()
    asked = list(subject.agents) or _configured(found, subject)
    seconds: dict[str, dict[str, float]] = {
        "scrub_time": {"in this configuration": subject.conf.scrub_time},
        "claim_timeout": {"in this configuration": subject.conf.scrubber.claim_timeout},
    }
    for address in asked:
        try:
            status = client.status(address)
        except client.NoAnswerError as error:
            said = f"{str(error)[0].upper()}{str(error)[1:]}."
            if subject.agents:
                found.warn(said)
            else:
                found.note(f"{said} Paused stores are therefore unknown.")
            continue
        try:
            _judge(found, address, report.read(status))
            settings = fields.mapping(status, "settings")
            for option, by_place in seconds.items():
                by_place[f"for the agent on {address}"] = fields.number(settings, option)
        except fields.UnreadableError:
            found.warn(
                f"The agent on {address} is of another release: use evscrub check of that release."
            )
    for option, by_place in seconds.items():
        _compare(found, option, by_place)
    if asked and not found.code and found.details is None:
        found.note(f"{count(len(asked), 'agent')} asked: nothing needs an operator.")
    return found


def _compare(found: Findings, option: str, seconds: Mapping[str, float]) -> None:
    """Warn about an option whose value differs.

    :param seconds: its value by where it was found.
    """
    if len(set(seconds.values())) > 1:
        said = ", ".join(f"{value:g} s {place}" for place, value in seconds.items())
        found.warn(
            f"{option} is not the same everywhere: {said}. It must be, because"
            f" {_ALIKE[option]}: set it in the configuration of each agent, and restart the agents."
        )


def _configured(found: Findings, subject: Subject) -> list[Address]:
    address = status_address(subject.conf)
    if address is None or not address.port:
        found.note("[status] listen names no port, so no agent was asked.")
        return []
    return [address]


def _judge(found: Findings, address: Address, status: AgentReport) -> None:
    tell = found.fail if any(store.is_paused for store in status.stores) else found.warn
    for problem in report.problems(status):
        end = "" if problem.endswith("?") else "."
        tell(printable(f"The agent on {address}: {problem}{end}"))
