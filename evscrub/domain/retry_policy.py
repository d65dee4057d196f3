# SPDX-License-Identifier: Apache-2.0
"""Decide when to retry an image that could not be scrubbed. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from evscrub.domain.verdict import Outcome

#: Tries after a refusal or an unknown error before the image is parked.
UNKNOWN_TRIES = 8


@dataclass(frozen=True, slots=True)
class Delays:
    """The configured delays, in seconds.

    :param initial: limit of the first retry's delay; doubled for each further retry.
    :param longest: highest limit of a retry's delay.
    :param in_use: delay for data that is in use.
    :param parked: delay for parked images.
    """

    initial: float
    longest: float
    in_use: float
    parked: float


def delay(
    outcome: Outcome, tries: int, delays: Delays, uniform: Callable[[float, float], float]
) -> float:
    """Return the delay until the next try, in seconds.

    Failures back off exponentially with full jitter, so that images that failed together are not
    retried together.

    :param tries: number of failures so far, at least 1.
    :param uniform: draws a number between its two arguments, as :func:`random.uniform`.
    """
    if outcome is Outcome.IN_USE:
        return delays.in_use * uniform(0.9, 1.1)
    if is_parked(outcome, tries):
        return delays.parked * uniform(0.9, 1.1)
    # The exponent is bounded, because years of failures would overflow a float.
    return uniform(0, min(delays.longest, delays.initial * 2.0 ** min(tries - 1, 60)))


def is_parked(outcome: Outcome, tries: int) -> bool:
    """Return whether an image is parked: retried rarely, because only an operator can help.

    :param tries: number of failures so far.
    """
    return outcome is Outcome.CONFIGURATION or (
        outcome in {Outcome.UNKNOWN, Outcome.REFUSED} and tries > UNKNOWN_TRIES
    )
