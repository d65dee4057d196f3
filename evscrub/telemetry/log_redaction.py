# SPDX-License-Identifier: Apache-2.0
"""Remove credentials from all that is logged."""

import json
import logging
from types import TracebackType
from typing import Any

from oslo_log.formatters import JSONFormatter

from evscrub.telemetry.redact import redact

_ExceptionInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


class RedactingFormatter(logging.Formatter):
    """Redact the output of another formatter, including tracebacks and error summaries.

    :param inner: the handler's formatter; the output of a JSON formatter stays valid JSON.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> Any:  # noqa: ANN401 - fluentd's is a dictionary
        """Return the redacted form of the record."""
        shown: Any = self._inner.format(record)
        if record.exc_text:  # cached by logging, and sent separately by the journal's handler
            record.exc_text = redact(record.exc_text)
        if isinstance(self._inner, JSONFormatter):
            return json.dumps(_redact_values(json.loads(shown)))
        return _redact_values(shown)

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802 - logging's name
        """Return the redacted traceback, for handlers that ask for it themselves."""
        return redact(self._inner.formatException(ei))


def install() -> None:
    """Wrap the formatter of every handler in a redacting one.

    Call it after each change of the logging configuration, which creates new handlers.
    """
    for handler in handlers():
        if not isinstance(handler.formatter, RedactingFormatter):
            handler.setFormatter(RedactingFormatter(handler.formatter or logging.Formatter()))


def loggers() -> list[logging.Logger]:
    """Return all loggers, while other threads may create some."""
    return [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]


def handlers() -> set[logging.Handler]:
    """Return the handlers of all loggers."""
    return {handler for logger in loggers() for handler in logger.handlers}


def _redact_values(value: object) -> object:
    match value:
        case str():
            return redact(value)
        case dict():
            return {key: _redact_values(item) for key, item in value.items()}
        case list():
            return [_redact_values(item) for item in value]
        case _:
            return value
