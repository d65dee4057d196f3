# SPDX-License-Identifier: Apache-2.0
"""Set logging up by oslo.log's options, and turn its various exceptions into one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from oslo_config import cfg
from oslo_log import log


class LoggingError(Exception):
    """Logging cannot be set up or changed; the message says why."""


def start(own: cfg.ConfigOpts) -> None:
    """Set logging up by evscrub's own files.

    :raises LoggingError: a handler cannot be created or configured.
    """
    # stevedore logs an error for each missing client of a store, enabled or not; glance_store warns
    # about those of enabled stores.
    levels = ["glance_store=WARNING", "stevedore=CRITICAL"]
    log.set_defaults(default_log_levels=[*log.get_default_log_levels(), *levels])
    try:
        log.setup(own, "evscrub")
    except Exception as error:  # noqa: BLE001 - handlers may raise anything
        raise LoggingError(f"logging cannot be set up: {error or type(error).__name__}") from None


@contextmanager
def kept_if_it_fails() -> Iterator[None]:
    """Restore all loggers, levels and handlers if oslo.log fails to change them in the block.

    :raises LoggingError: the block raised.
    """
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    before = [(each, each.level, list(each.handlers), each.propagate) for each in loggers]
    try:
        yield
    except Exception as error:  # noqa: BLE001 - handlers may raise anything
        for each, level, handlers, propagate in before:
            each.setLevel(level)
            each.handlers[:] = handlers
            each.propagate = propagate
        raise LoggingError(f"logging cannot be changed: {error or type(error).__name__}") from None
