# SPDX-License-Identifier: Apache-2.0
"""Ask agents on their status ports about images and stores in trouble, for several commands."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from oslo_config import cfg

from evscrub.commands.arguments import status_port
from evscrub.domain.address import Address, parse
from evscrub.domain.image_report import AgentReports, ReportedTrouble
from evscrub.status import client


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


def addresses(conf: cfg.ConfigOpts, arguments: argparse.Namespace) -> Sequence[Address]:
    """Return the agents that a command line or the configuration names.

    :raises ValueError: ``[status] listen`` is not an address.
    """
    named: Sequence[Address] | None = arguments.agent
    if named:
        return named
    address = parse(conf.status.listen)
    return [address] if address is not None and address.port else []


def ask(agents: Iterable[Address], say: Callable[[str], None]) -> AgentReports | None:
    """Ask the agents about images and stores; return None if no agent answers.

    :param say: called with why an agent does not answer.
    """
    images: dict[str, ReportedTrouble] = {}
    stores: dict[str, str] = {}
    answered = False
    for address in agents:
        try:
            for reported in client.troubles(address):
                if "id" in reported:
                    images[reported["id"]] = _trouble(reported)
                else:
                    stores[reported["store"]] = _store_trouble(reported)
        except client.NoAnswerError as error:
            say(str(error))
        else:
            answered = True
    return AgentReports(images, stores) if answered else None


def _store_trouble(reported: dict[str, Any]) -> str:
    words = "is paused" if reported.get("state") == "blown" else "does not work"
    return f"store {reported['store']} {words}: {_in_words(reported)}"


def _trouble(reported: dict[str, Any]) -> ReportedTrouble:
    words = _in_words(reported)
    tries = reported.get("tries")
    if tries:
        words += f" (tried {tries} times)" if tries != 1 else " (tried once)"
    # Many images share a few texts.
    return ReportedTrouble(sys.intern(str(reported.get("state", ""))), sys.intern(words))


def _in_words(reported: dict[str, Any]) -> str:
    words = str(reported.get("reason", ""))
    if " " not in words:  # a code, not a sentence, which may name a path
        words = words.replace("_", " ")
    return f"{words}: {reported['detail']}" if reported.get("detail") else words
