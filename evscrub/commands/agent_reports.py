# SPDX-License-Identifier: Apache-2.0
"""What agents report on their status ports about images and stores."""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from oslo_config import cfg

from evscrub.commands.status_port import status_port
from evscrub.config.settings import status_address
from evscrub.domain.address import Address
from evscrub.domain.image_report import AgentReports, ReportedTrouble
from evscrub.domain.quoting import printable
from evscrub.flow_control.circuit_breaker import State
from evscrub.status import client
from evscrub.status.report import in_plain_words
from evscrub.telemetry import output

_PAUSED = State.FORCED_OPEN.value


def add_argument(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add ``--agent``.

    :param purpose: what the agents are asked, to follow "status port of an agent to ask".
    """
    parser.add_argument(
        "--agent",
        action="append",
        type=status_port,
        metavar="HOST:PORT",
        help=f"status port of an agent to ask {purpose}; may be repeated (default: [status]"
        " listen)",
    )


def default_agents(conf: cfg.ConfigOpts) -> list[Address]:
    """Return the address of the agent with this configuration, if its status port is known."""
    address = status_address(conf)
    return [address] if address is not None and address.port else []


def ask(agents: Iterable[Address], say: Callable[[str], None] = output.say) -> AgentReports | None:
    """Ask agents about images and stores.

    :param say: called with which agents do not answer, and what that means for the user.
    :returns: None if no agent answers.
    """
    images: dict[str, ReportedTrouble] = {}
    stores: dict[str, str] = {}
    paused: frozenset[str] = frozenset()
    answered = False
    for address in agents:
        try:
            told = collect(client.troubles(address))
            images |= told.images
            stores |= told.stores
            paused |= told.paused
        except client.NoAnswerError as error:
            say(str(error))
        else:
            answered = True
    if not answered:
        say("images that are parked or in use, or whose store is paused, are shown as due")
        return None
    return AgentReports(images, stores, paused)


def collect(records: Iterable[Mapping[str, Any]]) -> AgentReports:
    """Collect the records of an agent's ``/troubles``."""
    images: dict[str, ReportedTrouble] = {}
    stores: dict[str, str] = {}
    paused = set()
    for reported in records:
        if "id" in reported:
            images[reported["id"]] = _trouble(reported)
        else:
            stores[reported["store"]] = _store_trouble(reported)
            if reported.get("state") == _PAUSED:
                paused.add(reported["store"])
    return AgentReports(images, stores, frozenset(paused))


def _store_trouble(reported: Mapping[str, Any]) -> str:
    words = "is paused" if reported.get("state") == _PAUSED else "does not work"
    return f"store {printable(reported['store'])} {words}: {_in_words(reported)}"


def _trouble(reported: Mapping[str, Any]) -> ReportedTrouble:
    words = _in_words(reported)
    tries = reported.get("tries")
    if tries:
        words += f" (tried {tries} times)" if tries != 1 else " (tried once)"
    # Many images share a few texts.
    return ReportedTrouble(sys.intern(str(reported.get("state", ""))), sys.intern(words))


def _in_words(reported: Mapping[str, Any]) -> str:
    words = in_plain_words(str(reported.get("reason", "")))
    return printable(f"{words}: {reported['detail']}" if reported.get("detail") else words)
