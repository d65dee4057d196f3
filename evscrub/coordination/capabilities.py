# SPDX-License-Identifier: Apache-2.0
"""What members publish to each other as their capabilities at the coordinator."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

_SHARE_KEY = "share"
_CONSUMERS_KEY = "consumers"
#: A fraction whose terms are small enough to calculate with.
_SHARE = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII).fullmatch
_NUMBER = re.compile(r"\d{1,9}", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True)
class Published:
    """What a member publishes.

    :param share: the part of the limits that it may use, from 0 to 1.
    :param consumers: how many agents consume from the bus, itself among them; None if it does not
        consume or does not know.
    """

    share: Fraction
    consumers: int | None = None


def encode(published: Published) -> dict[str, str]:
    """Return the capabilities of a member that publishes this."""
    share = published.share
    written = {_SHARE_KEY: f"{share.numerator}/{share.denominator}"}
    if published.consumers is not None:
        written[_CONSUMERS_KEY] = str(published.consumers)
    return written


def decode(capabilities: object) -> Published | None:
    """Return what a member published; None if there is no share from 0 to 1 in it.

    :param capabilities: what another process wrote, of any type.
    """
    if not isinstance(capabilities, Mapping) or (
        (match := _SHARE(_text(capabilities, _SHARE_KEY))) is None
    ):
        return None
    numerator, denominator = map(int, match.groups())
    if not numerator <= denominator > 0:
        return None
    consumers = _text(capabilities, _CONSUMERS_KEY)
    return Published(
        Fraction(numerator, denominator), int(consumers) if _NUMBER(consumers) else None
    )


def shares(members: Mapping[str, Published | None]) -> dict[str, Fraction | None]:
    """Return the share of each member; None if it cannot be read."""
    return {name: None if each is None else each.share for name, each in members.items()}


def _text(capabilities: Mapping[object, object], key: str) -> str:
    """Return the text of a key; empty if there is none."""
    # Drivers that store bytes return the keys and values as bytes.
    said = capabilities.get(key, capabilities.get(key.encode()))
    text = said.decode("ascii", "replace") if isinstance(said, bytes) else said
    return text if isinstance(text, str) else ""
