# SPDX-License-Identifier: Apache-2.0
"""When an image that could not be scrubbed is tried again. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from evscrub.domain.verdict import Outcome

#: Tries of what is refused, or what nobody expected, before it is parked.
UNKNOWN_TRIES = 8


@dataclass(frozen=True, slots=True)
class Delays:
    """The operator's delays, seconds."""

    initial: float
    longest: float
    in_use: float
    parked: float


def delay(
    outcome: Outcome, tries: int, delays: Delays, uniform: Callable[[float, float], float]
) -> float:
    """Seconds until the next try.

    Failures back off exponentially with full jitter, so that images that failed together do not
    come back together.

    :param tries: how often it has failed now, from 1.
    :param uniform: draws a number between two, as :func:`random.uniform` does.
    """
    if outcome is Outcome.IN_USE:
        return delays.in_use * uniform(0.9, 1.1)
    if is_parked(outcome, tries):
        return delays.parked * uniform(0.9, 1.1)
    # The exponent is bounded so that years of failures do not overflow a float.
    return uniform(0, min(delays.longest, delays.initial * 2.0 ** min(tries - 1, 60)))


def is_parked(outcome: Outcome, tries: int) -> bool:
    """Whether only an operator can help, so that the image is looked at but rarely."""
    return outcome is Outcome.CONFIGURATION or (
        outcome in {Outcome.UNKNOWN, Outcome.REFUSED} and tries > UNKNOWN_TRIES
    )
