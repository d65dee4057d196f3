# SPDX-License-Identifier: Apache-2.0
"""Sets logging up by the options of oslo.log, which raises whatever went wrong below it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from oslo_config import cfg
from oslo_log import log


class LoggingError(Exception):
    """Logging that cannot be set up; the message says why."""


def start(own: cfg.ConfigOpts) -> None:
    """Log where evscrub's own files say.

    :raises LoggingError: the options cannot be followed.
    """
    try:
        log.setup(own, "evscrub")
    except Exception as error:  # noqa: BLE001 - handlers raise what they like
        raise LoggingError(f"logging cannot be set up: {error or type(error).__name__}") from None


@contextmanager
def kept_if_it_fails() -> Iterator[None]:
    """Put loggers, levels and handlers back as they were when oslo.log fails to change them.

    :raises LoggingError: it failed.
    """
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    before = [(each, each.level, list(each.handlers), each.propagate) for each in loggers]
    try:
        yield
    except Exception as error:  # noqa: BLE001 - handlers raise what they like
        for each, level, handlers, propagate in before:
            each.setLevel(level)
            each.handlers[:] = handlers
            each.propagate = propagate
        raise LoggingError(f"logging cannot be changed: {error or type(error).__name__}") from None
