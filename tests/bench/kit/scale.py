# SPDX-License-Identifier: Apache-2.0
"""How much a run does."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """How much a run does.

    :param quick: seconds a benchmark instead of minutes, to see that it works.
    :param factor: by which numbers of images are multiplied in a run that is not quick.
    :param rounds: how often each peer runs; one when it is quick.
    """

    quick: bool = False
    factor: float = 1.0
    rounds: int = 3

    def count(self, whole: int, quick: int) -> int:
        """Return a number of images."""
        return quick if self.quick else max(quick, round(whole * self.factor))

    @property
    def turns(self) -> range:
        """Rounds; peers run in turn within each."""
        return range(1 if self.quick else self.rounds)


def tell(text: str) -> None:
    """Say on standard error how far it is."""
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()
