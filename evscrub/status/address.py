# SPDX-License-Identifier: Apache-2.0
"""Reads ``[status] listen``."""

from typing import NamedTuple

from oslo_utils import netutils

_HIGHEST_PORT = 65535


class Address(NamedTuple):
    """Where to listen, or where an agent does."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address | None:
    """Read ``HOST:PORT``, with brackets around an IPv6 address; None for an empty text.

    :raises ValueError: it is neither.
    """
    if not text.strip():
        return None
    try:
        host, port = netutils.parse_host_port(text.strip())
    except (ValueError, TypeError):
        host, port = None, None
    if not host or port is None or not 0 <= port <= _HIGHEST_PORT:
        raise ValueError(f"[status] listen: {text!r} is not HOST:PORT")
    return Address(host, port)
