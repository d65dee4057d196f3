# SPDX-License-Identifier: Apache-2.0
"""Keep credentials out of all output.

The messages of evscrub never hold a location URL, but libraries quote one in a message or in an
exception's text, and the URLs of S3 and Swift hold a user's key.
"""

import json
import logging
import re
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

from oslo_log.formatters import JSONFormatter

# A key may hold any character, a slash or a quote included, so all up to the last "@" is replaced.
_URL_LOGIN = re.compile(r"\b([a-z][a-z0-9+.-]*://)\S*@", re.IGNORECASE)
# glance_store's s3 driver names hosts as user:key@host, without a scheme.
_HOST_LOGIN = re.compile(r"(?<![^\s'\"=(,\[])[^/\s'\"=(,\[@:]+:(?!//)\S+@(?=[\w\[])")
_PARAMETER = re.compile(
    r"((?:x-amz-(?:signature|credential|security-token)|awsaccesskeyid|signature|sig|token"
    r"|[a-z_-]*(?:password|passwd|secret|api_?key|access_?key|secret_?key))=)[^&\s]+",
    re.IGNORECASE,
)

_ExceptionInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


def redact(text: str) -> str:
    """Return `text` with the credentials in it replaced by ``***``.

    Credentials are ``user:key@`` of a URL or of a host, and the values of parameters that are named
    after a password, a key, a token or a signature, as in ``?password=`` or ``X-Amz-Signature=``.
    """
    text = _URL_LOGIN.sub(r"\1***@", text)
    text = _HOST_LOGIN.sub("***@", text)
    return _PARAMETER.sub(r"\1***", text)


class RedactingFormatter(logging.Formatter):
    """Redact what another formatter makes of a record, its traceback and error summary included.

    :param inner: the formatter of the handler; a JSON formatter's text stays valid JSON.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> Any:  # noqa: ANN401 - fluentd's is a dictionary
        """Return the redacted form of the record."""
        shown: Any = self._inner.format(record)
        if record.exc_text:  # kept by logging; the journal's handler sends it beside the message
            record.exc_text = redact(record.exc_text)
        if isinstance(self._inner, JSONFormatter):
            return json.dumps(_redact_values(json.loads(shown)))
        return _redact_values(shown)

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802 - logging's name
        """Return the redacted traceback, for handlers that ask for it themselves."""
        return redact(self._inner.formatException(ei))


def install() -> None:
    """Make the formatter of every handler a redacting one.

    Call it after each change of the log's configuration, since that makes new handlers.
    """
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if not isinstance(handler.formatter, RedactingFormatter):
            handler.setFormatter(RedactingFormatter(handler.formatter or logging.Formatter()))


def install_excepthooks() -> None:
    """Redact the tracebacks of exceptions that nothing catches, in any thread."""

    def show(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        sys.stderr.write(redact("".join(traceback.format_exception(kind, error, where))))

    def show_of_thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None:
            show(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)

    sys.excepthook = show
    threading.excepthook = show_of_thread


def _redact_values(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    match value:
        case str():
            return redact(value)
        case dict():
            return {key: _redact_values(item) for key, item in value.items()}
        case list():
            return [_redact_values(item) for item in value]
        case _:
            return value
