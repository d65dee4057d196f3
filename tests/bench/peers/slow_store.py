# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a store whose deletes take long and cost no CPU, in the peer's own process.

A server that speaks S3 or Swift would be bound by what its client costs in Python, some 10 ms a
delete, and so would measure boto3. What is asked here is whether a peer keeps its slots busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


class SlowStore:
    """Counts and times the deletes that it stands in for.

    :param seconds: each takes so long.
    """

    def __init__(self, seconds: float) -> None:
        self.began: list[float] = []
        self.ended: list[float] = []
        self._seconds = seconds

    def standing_in(self, answer: R) -> Callable[..., R]:
        """Return what is called in place of a delete, and answers so."""

        def delete(*_: object) -> R:
            self.began.append(time.monotonic())
            if self._seconds:
                time.sleep(self._seconds)
            self.ended.append(time.monotonic())
            return answer

        return delete

    @property
    def busy_seconds(self) -> float:
        """From the first delete's begin to the last one's end."""
        return max(self.ended) - min(self.began)
