# SPDX-License-Identifier: Apache-2.0
"""The argument that names an agent's status port."""

import argparse

from evscrub.domain.address import Address, parse


def status_port(text: str) -> Address:
    """Parse the address of an agent's status port.

    :raises argparse.ArgumentTypeError: the text is not ``HOST:PORT``.
    """
    try:
        address = parse(text)
    except ValueError:
        address = None
    if address is None:
        raise argparse.ArgumentTypeError(f"must be HOST:PORT, not {text!r}")
    return address
