# SPDX-License-Identifier: Apache-2.0
"""Parse addresses to listen on, as in ``[status] listen``. Pure."""

from typing import NamedTuple

from oslo_utils import netutils

MAX_PORT = 65535
_QUOTED_CHARACTERS = 80
#: The word that turns the listener off.
OFF = "none"


class Address(NamedTuple):
    """Host and port of a listener."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address | None:
    """Parse ``HOST:PORT``, with brackets around an IPv6 address.

    :returns: None for the word ``none``, which turns the listener off.
    :raises ValueError: the text is neither.
    """
    text = text.strip()
    if text.lower() == OFF:
        return None
    try:
        host, port = netutils.parse_host_port(text)
    except (ValueError, TypeError):
        host, port = None, None
    if not host or port is None or not 0 <= port <= MAX_PORT or not _is_host(host):
        raise ValueError(
            f"must be HOST:PORT, or {OFF} for no status page, not {text[:_QUOTED_CHARACTERS]!r}"
        )
    return Address(host, port)


def _is_host(text: str) -> bool:
    """Return whether a host can be looked up without an exception other than OSError.

    Names beyond ASCII may raise others, as a hyphen from a word processor does.
    """
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return text.isascii() and text.isprintable() and " " not in text
