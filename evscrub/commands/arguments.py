# SPDX-License-Identifier: Apache-2.0
"""Argument types shared by several subcommands."""

import argparse

from evscrub.domain.address import Address, parse

#: Largest number of rows that all databases take as a limit.
_MAX_NATURAL = 2**31 - 1


def natural(text: str) -> int:
    """Parse a number of things.

    :raises argparse.ArgumentTypeError: it is not a whole number from 0 to 2**31 - 1.
    """
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= _MAX_NATURAL:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {_MAX_NATURAL}")
    return number


def status_port(text: str) -> Address:
    """Parse the address of an agent's status port.

    :raises argparse.ArgumentTypeError: the text is not ``HOST:PORT``.
    """
    try:
        address = parse(text)
    except ValueError:
        address = None
    if address is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return address
