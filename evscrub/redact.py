# SPDX-License-Identifier: Apache-2.0
"""Keeps credentials out of the log.

evscrub's own messages never hold a location URL, but the libraries below it quote one here and
there, and S3 and Swift URLs hold the user's key.
"""

import logging
import re

_CREDENTIALS = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^/\s'\"]*@", re.IGNORECASE)
# glance_store's s3 driver names hosts as user:key@host, without a scheme.
_BARE = re.compile(r"(?<![^\s'\"=(,\[])[^/\s'\"=(,\[@:]+:[^/\s'\"@]+@(?=[\w\[])")


def redact(text: str) -> str:
    """Return `text` with each ``user:key@`` of a URL or a host in it replaced."""
    return _BARE.sub("***@", _CREDENTIALS.sub(r"\1***@", text))


class RedactingFilter(logging.Filter):
    """Redacts records: message, arguments and traceback alike."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record where it holds credentials; never drops one."""
        message = record.getMessage()
        clean = redact(message)
        if clean != message:
            record.msg, record.args = clean, None
        if record.exc_info and not record.exc_text:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True


def install() -> None:
    """Let every handler there is redact what it writes, but for those that do already."""
    for handler in handlers():
        if not any(isinstance(known, RedactingFilter) for known in handler.filters):
            handler.addFilter(RedactingFilter())


def handlers() -> set[logging.Handler]:
    """Return the handlers of all loggers."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    return {handler for logger in loggers for handler in logger.handlers}
