# SPDX-License-Identifier: Apache-2.0
"""What members publish to each other as their capabilities at the coordinator."""

import re
from collections.abc import Mapping
from fractions import Fraction

_KEY = "share"
#: A fraction whose terms are small enough to calculate with.
_SHARE = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII).fullmatch


def encode(share: Fraction) -> dict[str, str]:
    """Return the capabilities of a member with this share, from 0 to 1."""
    return {_KEY: f"{share.numerator}/{share.denominator}"}


def decode(capabilities: object) -> Fraction | None:
    """Return the share in a member's capabilities; None if there is none from 0 to 1.

    :param capabilities: what another process wrote, of any type.
    """
    if not isinstance(capabilities, Mapping):
        return None
    # Drivers that store bytes return the keys and values as bytes.
    said = capabilities.get(_KEY, capabilities.get(_KEY.encode()))
    text = said.decode("ascii", "replace") if isinstance(said, bytes) else said
    if not isinstance(text, str) or (match := _SHARE(text)) is None:
        return None
    numerator, denominator = map(int, match.groups())
    return Fraction(numerator, denominator) if numerator <= denominator > 0 else None
