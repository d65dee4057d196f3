# SPDX-License-Identifier: Apache-2.0
"""Types of arguments that several subcommands take."""

import argparse

from evscrub.domain.address import Address, parse


def status_port(text: str) -> Address:
    """Read an agent's status port.

    :raises argparse.ArgumentTypeError: it is not ``HOST:PORT``.
    """
    try:
        address = parse(text)
    except ValueError:
        address = None
    if address is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return address
