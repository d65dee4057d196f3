# SPDX-License-Identifier: Apache-2.0
"""Keep libraries from logging what evscrub logs itself in fewer lines."""

import logging
from collections.abc import Callable

from evscrub.telemetry import log_redaction

LOG = logging.getLogger(__name__)

#: Loggers that write the traceback of an error that evscrub also receives as an exception.
_RAISED = ("oslo_db", "sqlalchemy.pool")


class Demote(logging.Filter):
    """Demote records that repeat what evscrub logs to DEBUG.

    :param is_told: returns whether evscrub logs the content of a record; must be thread-safe.
    """

    def __init__(self, is_told: Callable[[logging.LogRecord], bool]) -> None:
        super().__init__()
        self._is_told = is_told

    def filter(self, record: logging.LogRecord) -> bool:
        """Demote a record that evscrub logs itself; drop it unless evscrub logs at DEBUG."""
        if not getattr(record, "demoted", False):  # by the filter of another handler
            if record.levelno <= logging.DEBUG or not self._is_told(record):
                return True
            record.demoted = True
            record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
        return LOG.isEnabledFor(logging.DEBUG)


def is_raised(record: logging.LogRecord) -> bool:
    """Return whether a record has a database error that evscrub receives as an exception."""
    return bool(record.exc_info) and is_below(record.name, _RAISED)


def is_below(name: str, loggers: tuple[str, ...]) -> bool:
    """Return whether a logger is one of `loggers`, or below one of them."""
    return any(name == logger or name.startswith(f"{logger}.") for logger in loggers)


def install(demote: Demote) -> None:
    """Add the demoting filter to every handler that lacks one."""
    for handler in log_redaction.handlers():
        if not any(isinstance(known, Demote) for known in handler.filters):
            handler.addFilter(demote)
