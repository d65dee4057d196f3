# SPDX-License-Identifier: Apache-2.0
"""Checks of running agents, which know more than the registry does."""

from collections.abc import Mapping
from typing import Any

from evscrub.checks.report import Findings
from evscrub.checks.subject import Subject
from evscrub.config.settings import status_address
from evscrub.domain.address import Address
from evscrub.domain.words import count
from evscrub.status import client

#: Options that must be the same on all agents, and what the smallest value causes.
_ALIKE = {
    "scrub_time": "data is deleted after the shortest",
    "claim_timeout": "with a shorter one, an agent may take over claims that are still in use",
}


def agents(subject: Subject) -> Findings:
    """Ask agents for paused or failing stores, parked images and their settings."""
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
            _judge(found, address, status)
            for option, by_place in seconds.items():
                by_place[f"for the agent on {address}"] = float(status["settings"][option])
        except (KeyError, TypeError, ValueError):
            found.warn(
                f"The agent on {address} is of another release: use evscrub check of that release."
            )
    for option, by_place in seconds.items():
        _compare(found, option, by_place)
    if asked and not found.code and found.details is None:
        found.note(f"{count(len(asked), 'agent')} asked: no store is paused, no image is parked.")
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


def _judge(found: Findings, address: Address, status: dict[str, Any]) -> None:
    for store in status["stores"]:
        waiting = count(store["ready"] + store["claimed"], "image waits", "images wait")
        if store["breaker"] == "blown":
            found.fail(
                f"The store {store['name']} is paused: {store['reason']}; {waiting}. Repair it"
                f" and send SIGHUP to the agent on {address}."
            )
        elif store["breaker"] != "closed":
            found.warn(
                f"The store {store['name']} does not work for the agent on {address}:"
                f" {store['reason']}; {waiting}, and the agent probes it from time to time."
            )
        elif stopped := store["owners_stopped"]:
            found.warn(
                f"The agent on {address} has stopped {count(stopped, 'project')} in the store"
                f" {store['name']}, whose images fail one after another while those of others do"
                " not. Its log names the projects."
            )
    if parked := status["parked"]["total"]:
        found.warn(
            f"The agent on {address} has parked {count(parked, 'image')}: 'evscrub list --parked'"
            " lists them with their reasons."
        )
    if not status["registry"]["answers"]:
        found.warn(f"The database does not answer the agent on {address}.")
    if not status["bus"]["joined"]:
        found.warn(f"The agent on {address} has not joined the bus: only sweeps find due images.")
