# SPDX-License-Identifier: Apache-2.0
"""Checks of the agents that run already: what they know and no look at the registry tells."""

from typing import Any

from evscrub.checks.report import Findings, count
from evscrub.checks.subject import Subject
from evscrub.status import client
from evscrub.status.address import Address, parse


def agents(subject: Subject) -> Findings:
    """Ask the agents for stores that are paused or fail, and for images that are parked."""
    found = Findings()
    asked = list(subject.agents) or _configured(found, subject)
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
        except (KeyError, TypeError):
            found.warn(f"The agent on {address} is of another release: ask it with its own check.")
    if asked and not found.code and found.details is None:
        found.note(f"{count(len(asked), 'agent')} asked: no store is paused, no image is parked.")
    return found


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
        waiting = count(store["ready"] + store["claimed"] + store["suspects"], "image")
        if store["breaker"] == "blown":
            found.fail(
                f"The store {store['name']} is paused: {store['reason']}; {waiting} wait. Mend it"
                f" and send the agent on {address} SIGHUP."
            )
        elif store["breaker"] != "closed":
            found.warn(
                f"The store {store['name']} does not work for the agent on {address}:"
                f" {store['reason']}; {waiting} wait, and it is probed now and then."
            )
        elif stopped := store["owners_stopped"]:
            found.warn(
                f"Images of {count(stopped, 'project')} in the store {store['name']} wait for the"
                f" agent on {address}: they fail or are not found, one after another, and those of"
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
