# SPDX-License-Identifier: Apache-2.0
"""Log an outage: when it begins, once a minute while it lasts, and when it ends."""

import math
import threading
from collections.abc import Callable

from oslo_log import log as logging

from evscrub.telemetry.log_limit import LogLimit

LOG = logging.getLogger(__name__)

#: How often a lasting outage is logged.
REMIND_SECONDS = 60.0
#: An outage this soon after another counts as its continuation.
_STEADY_SECONDS = 10.0


class Outage:
    """Keep track of a service's outages and log them. Thread-safe.

    :param name: the service, as a sentence starts with it.
    :param consequence: what its absence means for evscrub, a sentence without a period.
    :param now: returns seconds of a clock that also runs while the process is stopped.
    :param remind_seconds: how often a lasting outage is logged; infinity for once.
    """

    def __init__(
        self,
        name: str,
        consequence: str,
        now: Callable[[], float],
        remind_seconds: float = REMIND_SECONDS,
    ) -> None:
        self._name = name
        self._consequence = consequence
        self._now = now
        self._lock = threading.Lock()
        self._since: float | None = None
        self._limit = LogLimit(remind_seconds)
        self._is_told = False
        self._back_at = -math.inf

    @property
    def is_on(self) -> bool:
        """Whether the service is away."""
        return self._since is not None

    def away(self, reason: str) -> None:
        """Record that the service is away, or still away.

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
        """Record that the service works."""
        with self._lock:
            if self._since is None:
                return
            self._back_at = self._now()
            seconds, self._since = self._back_at - self._since, None
            told, self._is_told = self._is_told, False
        if told:
            LOG.info("%s is back after %.0f s", self._name, seconds)


def _warn(text: str, *arguments: object) -> None:
    """Log a warning without the exception being handled, which the text already describes.

    oslo.log appends the current exception to a line, except those of a few types such as
    ValueError.
    """
    try:
        raise ValueError  # noqa: TRY301 - replaces the current exception
    except ValueError:
        LOG.warning(text, *arguments)
