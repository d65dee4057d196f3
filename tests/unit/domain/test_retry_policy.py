# SPDX-License-Identifier: Apache-2.0
"""How long a failed image waits for its next try."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.domain.retry_policy import UNKNOWN_TRIES, Delays, delay, is_parked
from evscrub.domain.verdict import Outcome

DELAYS = Delays(initial=5, longest=600, in_use=1800, parked=3600)

RETRIED = [Outcome.TRANSIENT, Outcome.STORE_TROUBLE, Outcome.UNKNOWN]


class Drawn:
    """A draw that is as high, or as low, as it may be."""

    def __init__(self, part: float) -> None:
        self.part = part

    def __call__(self, low: float, high: float) -> float:
        return low + (high - low) * self.part


LOWEST, HIGHEST = Drawn(0), Drawn(1)


@pytest.mark.parametrize("outcome", RETRIED)
@pytest.mark.parametrize(
    ("tries", "longest"), [(1, 5), (2, 10), (3, 20), (4, 40), (7, 320), (8, 600)]
)
def test_backoff_doubles_with_each_failure(outcome: Outcome, tries: int, longest: float) -> None:
    assert delay(outcome, tries, DELAYS, HIGHEST) == longest
    assert delay(outcome, tries, DELAYS, LOWEST) == 0


@pytest.mark.parametrize("tries", [1, 3, UNKNOWN_TRIES, UNKNOWN_TRIES + 1, 1000])
def test_in_use_has_a_constant_long_delay(tries: int) -> None:
    assert delay(Outcome.IN_USE, tries, DELAYS, LOWEST) == pytest.approx(1620)
    assert delay(Outcome.IN_USE, tries, DELAYS, HIGHEST) == pytest.approx(1980)
    assert not is_parked(Outcome.IN_USE, tries)


@pytest.mark.parametrize(
    ("outcome", "tries"),
    [
        (Outcome.CONFIGURATION, 1),
        (Outcome.CONFIGURATION, 1000),
        (Outcome.UNKNOWN, UNKNOWN_TRIES + 1),
        (Outcome.UNKNOWN, 1000),
    ],
)
def test_configuration_faults_are_parked(outcome: Outcome, tries: int) -> None:
    assert is_parked(outcome, tries)
    assert delay(outcome, tries, DELAYS, LOWEST) == pytest.approx(3240)
    assert delay(outcome, tries, DELAYS, HIGHEST) == pytest.approx(3960)


@pytest.mark.parametrize("outcome", RETRIED)
@pytest.mark.parametrize("tries", [1, UNKNOWN_TRIES])
def test_transient_failures_are_not_parked(outcome: Outcome, tries: int) -> None:
    assert not is_parked(outcome, tries)


@pytest.mark.parametrize("outcome", [Outcome.TRANSIENT, Outcome.STORE_TROUBLE])
def test_store_trouble_is_never_parked(outcome: Outcome) -> None:
    assert not is_parked(outcome, 10**6)
    assert delay(outcome, 10**6, DELAYS, HIGHEST) == DELAYS.longest


@given(
    st.sampled_from(Outcome),
    st.integers(1, 10**9),
    st.floats(0.1, 1e6),
    st.floats(1, 1e6),
    st.randoms(use_true_random=False),
)
def test_delays_are_within_the_configured_bounds(
    outcome: Outcome, tries: int, initial: float, longest: float, rng: random.Random
) -> None:
    delays = Delays(initial=initial, longest=longest, in_use=1800, parked=3600)
    seconds = delay(outcome, tries, delays, rng.uniform)
    assert 0 <= seconds <= max(longest, 1.1 * 3600)
    if outcome in {Outcome.TRANSIENT, Outcome.STORE_TROUBLE}:
        assert seconds <= longest
