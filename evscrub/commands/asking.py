# SPDX-License-Identifier: Apache-2.0
"""Ask several agents at once, for the subcommands that need nothing but agents."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from evscrub.commands.status_port import status_port
from evscrub.config import loader
from evscrub.config.arguments import add_config_arguments
from evscrub.config.settings import status_address
from evscrub.domain.address import Address
from evscrub.domain.refusals import UsageError
from evscrub.status.client import NoAnswerError

T = TypeVar("T")

_MOST_AT_ONCE = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which agents to ask."""
    add_config_arguments(parser)
    parser.add_argument(
        "--agent",
        action="append",
        type=status_port,
        metavar="HOST:PORT",
        help="status port of an agent to ask; may be repeated, and no configuration is read then"
        " (default: [status] listen)",
    )


def agents(arguments: argparse.Namespace) -> Sequence[Address]:
    """Return the agents that a command line names, or the one of the configuration.

    :raises UsageError: there is none.
    :raises ConfigError: the configuration is wrong.
    """
    named: list[Address] = arguments.agent or []
    if named and not arguments.config_file:
        return list(dict.fromkeys(named))
    conf, _ = loader.load_for(arguments)
    if named:
        return list(dict.fromkeys(named))
    address = status_address(conf)
    if address is None or not address.port:
        raise UsageError(
            f"[status] listen is {conf.status.listen}, so no agent can be asked there: name one by"
            " --agent HOST:PORT"
        )
    return [address]


def ask(
    addresses: Sequence[Address], question: Callable[[Address], T]
) -> Mapping[Address, T | NoAnswerError]:
    """Ask agents at the same time, and return the answer of each, or why there is none.

    :param question: asks an agent; may raise :class:`NoAnswerError`.
    """

    def one(address: Address) -> T | NoAnswerError:
        try:
            return question(address)
        except NoAnswerError as error:
            return error

    with ThreadPoolExecutor(_MOST_AT_ONCE) as threads:
        return dict(zip(addresses, threads.map(one, addresses), strict=True))
