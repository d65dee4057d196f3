# SPDX-License-Identifier: Apache-2.0
"""What agents report on their status ports about images and stores."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from oslo_config import cfg

from evscrub.domain.address import Address, parse
from evscrub.domain.image_report import AgentReports, ReportedTrouble
from evscrub.status import client


def default_agents(conf: cfg.ConfigOpts) -> list[Address]:
    """Return the address of the agent with this configuration, if its status port is known."""
    address = parse(conf.status.listen)
    return [address] if address is not None and address.port else []


def ask(agents: Iterable[Address]) -> AgentReports | None:
    """Ask agents about images and stores, and say on standard error which do not answer.

    :returns: None if no agent answers.
    """
    images: dict[str, ReportedTrouble] = {}
    stores: dict[str, str] = {}
    answered = False
    for address in agents:
        try:
            told = collect(client.troubles(address))
            images |= told.images
            stores |= told.stores
        except client.NoAnswerError as error:
            print(f"evscrub: {error}", file=sys.stderr)
        else:
            answered = True
    if not answered:
        print(
            "evscrub: images that are parked or in use, or whose store is paused, are shown as due",
            file=sys.stderr,
        )
        return None
    return AgentReports(images, stores)


def collect(records: Iterable[Mapping[str, Any]]) -> AgentReports:
    """Collect the records of an agent's ``/troubles``."""
    images: dict[str, ReportedTrouble] = {}
    stores: dict[str, str] = {}
    for reported in records:
        if "id" in reported:
            images[reported["id"]] = _trouble(reported)
        else:
            stores[reported["store"]] = _store_trouble(reported)
    return AgentReports(images, stores)


def _store_trouble(reported: Mapping[str, Any]) -> str:
    words = "is paused" if reported.get("state") == "blown" else "does not work"
    return f"store {reported['store']} {words}: {_in_words(reported)}"


def _trouble(reported: Mapping[str, Any]) -> ReportedTrouble:
    words = _in_words(reported)
    tries = reported.get("tries")
    if tries:
        words += f" (tried {tries} times)" if tries != 1 else " (tried once)"
    # Many images share a few texts.
    return ReportedTrouble(sys.intern(str(reported.get("state", ""))), sys.intern(words))


def _in_words(reported: Mapping[str, Any]) -> str:
    words = str(reported.get("reason", ""))
    if " " not in words:  # a code, not a sentence, which may name a path
        words = words.replace("_", " ")
    return f"{words}: {reported['detail']}" if reported.get("detail") else words
