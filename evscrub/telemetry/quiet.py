# SPDX-License-Identifier: Apache-2.0
"""Keeps libraries from saying in the log what evscrub says itself, with many more lines."""

import logging
from collections.abc import Callable

from evscrub.telemetry import redact

LOG = logging.getLogger(__name__)

#: They log the traceback of an error that they also raise, or that was raised before, to evscrub.
_RAISED = ("oslo_db", "sqlalchemy.pool")


class Demote(logging.Filter):
    """Lets records that evscrub's own say already through at DEBUG alone.

    :param is_told: whether evscrub says what a record does. Called in any thread.
    """

    def __init__(self, is_told: Callable[[logging.LogRecord], bool]) -> None:
        super().__init__()
        self._is_told = is_told

    def filter(self, record: logging.LogRecord) -> bool:
        """Demote the record if evscrub tells it; drop it then unless evscrub logs at DEBUG."""
        if not getattr(record, "demoted", False):  # as another handler's filter did
            if record.levelno <= logging.DEBUG or not self._is_told(record):
                return True
            record.demoted = True
            record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
        return LOG.isEnabledFor(logging.DEBUG)


def is_raised(record: logging.LogRecord) -> bool:
    """Return whether a record is about an error of the database that evscrub gets itself."""
    return bool(record.exc_info) and is_below(record.name, _RAISED)


def is_below(name: str, loggers: tuple[str, ...]) -> bool:
    """Return whether a logger is one of some, or below one."""
    return any(name == logger or name.startswith(f"{logger}.") for logger in loggers)


def install(demote: Demote) -> None:
    """Let every handler there is demote, but for those that do already."""
    for handler in redact.handlers():
        if not any(isinstance(known, Demote) for known in handler.filters):
            handler.addFilter(demote)
