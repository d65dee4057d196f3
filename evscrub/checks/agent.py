# SPDX-License-Identifier: Apache-2.0
"""Checks of the agents that run already: what they know and no look at the registry tells."""

from collections.abc import Mapping
from typing import Any

from evscrub.checks.report import Findings
from evscrub.checks.subject import Subject
from evscrub.domain.address import Address, parse
from evscrub.domain.words import count
from evscrub.status import client

#: Options that must be the same on all agents, and what the one with the least makes of it.
_ALIKE = {
    "scrub_time": "data is deleted when the shortest is over",
    "claim_timeout": "an agent may delete what one with a longer one has claimed and is deleting",
}


def agents(subject: Subject) -> Findings:
    """Ask the agents for stores that are paused or fail, for parked images and their settings."""
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
                found.note(f"{said} Whether a store is paused is not known.")
            continue
        try:
            _judge(found, address, status)
            for option, by_place in seconds.items():
                by_place[f"for the agent on {address}"] = float(status["settings"][option])
        except (KeyError, TypeError, ValueError):
            found.warn(f"The agent on {address} is of another release: ask it with its own check.")
    for option, by_place in seconds.items():
        _compare(found, option, by_place)
    if asked and not found.code and found.details is None:
        found.note(f"{count(len(asked), 'agent')} asked: no store is paused, no image is parked.")
    return found


def _compare(found: Findings, option: str, seconds: Mapping[str, float]) -> None:
    """Warn of an option that differs from one place to another."""
    if len(set(seconds.values())) > 1:
        said = ", ".join(f"{value:g} s {place}" for place, value in seconds.items())
        found.warn(
            f"{option} is not the same everywhere: {said}. It must be, for {_ALIKE[option]}: set it"
            " in the configuration of each agent, and restart those that ran before."
        )


def _configured(found: Findings, subject: Subject) -> list[Address]:
    try:
        address = parse(subject.conf.status.listen)
    except ValueError as error:
        found.fail(f"{error}.")
        return []
    if address is None or not address.port:
        found.note("[status] listen names no port, so no agent was asked.")
        return []
    return [address]


def _judge(found: Findings, address: Address, status: dict[str, Any]) -> None:
    for store in status["stores"]:
        waiting = count(store["ready"] + store["claimed"], "image waits", "images wait")
        if store["breaker"] == "blown":
            found.fail(
                f"The store {store['name']} is paused: {store['reason']}; {waiting}. Mend it"
                f" and send the agent on {address} SIGHUP."
            )
        elif store["breaker"] != "closed":
            found.warn(
                f"The store {store['name']} does not work for the agent on {address}:"
                f" {store['reason']}; {waiting}, and it is probed now and then."
            )
        elif stopped := store["owners_stopped"]:
            found.warn(
                f"Images of {count(stopped, 'project')} in the store {store['name']} wait for the"
                f" agent on {address}: they fail, one after another, and those of"
                " others are not. Its log names the projects."
            )
    if parked := status["parked"]["total"]:
        found.warn(
            f"The agent on {address} has {count(parked, 'image')} parked: 'evscrub list --parked'"
            " says which, and why."
        )
    if not status["registry"]["answers"]:
        found.warn(f"The database does not answer the agent on {address}.")
    if not status["bus"]["joined"]:
        found.warn(f"The agent on {address} has not joined the bus: sweeps find what is due.")
