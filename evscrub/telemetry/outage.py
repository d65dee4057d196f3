# SPDX-License-Identifier: Apache-2.0
"""Tells in the log that something is away: at the change, once a minute, and when it is back."""

import math
import threading
from collections.abc import Callable

from oslo_log import log as logging

from evscrub.telemetry.log_limit import LogLimit

LOG = logging.getLogger(__name__)

#: How often a lasting outage is told.
REMIND_SECONDS = 60.0
#: What is away again this soon was not really back.
_STEADY_SECONDS = 10.0


class Outage:
    """What is known of whether something is there; for any thread.

    :param name: what it is, as a sentence begins.
    :param consequence: what its absence means for evscrub.
    :param now: seconds, of a clock that runs on while the process is stopped.
    """

    def __init__(self, name: str, consequence: str, now: Callable[[], float]) -> None:
        self._name = name
        self._consequence = consequence
        self._now = now
        self._lock = threading.Lock()
        self._since: float | None = None
        self._limit = LogLimit(REMIND_SECONDS)
        self._is_told = False
        self._back_at = -math.inf

    @property
    def is_on(self) -> bool:
        """Whether it is away."""
        return self._since is not None

    def away(self, reason: str) -> None:
        """Take in that it is away, or still is.

        :param reason: one line without credentials.
        """
        with self._lock:
            now = self._now()
            begins = self._since is None
            if self._since is None:
                self._since = now
            seconds = now - self._since
            steady = begins and now >= self._back_at + _STEADY_SECONDS
            if not self._limit.allows(now, even_if_recent=steady):
                return
            self._is_told = True
        if begins:
            _warn("%s is away: %s. %s", self._name, reason, self._consequence)
        else:
            _warn("%s has been away for %.0f s: %s", self._name, seconds, reason)

    def back(self) -> None:
        """Take in that it is there."""
        with self._lock:
            if self._since is None:
                return
            self._back_at = self._now()
            seconds, self._since = self._back_at - self._since, None
            told, self._is_told = self._is_told, False
        if told:
            LOG.info("%s is back after %.0f s", self._name, seconds)


def _warn(text: str, *arguments: object) -> None:
    """Log a warning, which may be while an exception is handled that it speaks of already.

    oslo.log would add that exception to the line; it does not add those of a few types.
    """
    try:
        raise ValueError  # noqa: TRY301 - this is all that it is for
    except ValueError:
        LOG.warning(text, *arguments)
