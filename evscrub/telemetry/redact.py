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

# What redacts takes time in proportion to the text, whatever that is: members of projects choose
# names that libraries log, and a formatter holds up the whole process.
_WORD = re.compile(r"\S+")
_LAST_AT = re.compile(r".*@(?=[\w\[])", re.DOTALL)
# glance_store's s3 driver names hosts as user:key@host, without a scheme.
_HOST_LOGIN = re.compile(r"(?<![^'\"=(,\[])[^/'\"=(,\[@:]+:(?!//)(?=.)", re.DOTALL)
_NAMES = (
    r"(?:credential|signature|sig|token|password|passwd|secret"
    r"|api_?key|access_?key(?:_?id)?|secret_?key)"
)
_PARAMETER = re.compile(rf"({_NAMES}=)[^&\s]+", re.IGNORECASE)
# As in a dictionary or in JSON.
_ITEM = re.compile(rf"({_NAMES}[\"']: ?b?[\"'])[^\"']+", re.IGNORECASE)

_ExceptionInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


def redact(text: str) -> str:
    """Return `text` with the credentials in it replaced by ``***``.

    Credentials are ``user:key@`` of a URL or of a host, and the values of parameters that are named
    after a password, a key, a token or a signature, as in ``?password=``, ``X-Amz-Signature=`` or
    ``'password': ``.
    """
    if "@" in text:
        text = _WORD.sub(_redact_logins, text)
    return _ITEM.sub(r"\1***", _PARAMETER.sub(r"\1***", text))


def _redact_logins(match: re.Match[str]) -> str:
    """Replace the login in a word without spaces.

    A key may hold any character, a slash or a quote included, so all up to the last "@" goes.
    """
    word = match[0]
    begin, end = word.find("://"), word.rfind("@")
    if 0 <= begin < end:
        word = f"{word[: begin + 3]}***{word[end:]}"
    if last := _LAST_AT.match(word):
        end = last.end() - 1
        if login := _HOST_LOGIN.search(word, 0, end):
            word = f"{word[: login.start()]}***{word[end:]}"
    return word


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
    for handler in handlers():
        if not isinstance(handler.formatter, RedactingFormatter):
            handler.setFormatter(RedactingFormatter(handler.formatter or logging.Formatter()))


def handlers() -> set[logging.Handler]:
    """Return the handlers of all loggers."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    return {handler for logger in loggers for handler in logger.handlers}


def install_excepthooks() -> None:
    """Redact the tracebacks of exceptions that nothing catches, in any thread."""

    def show(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        sys.stderr.write(redact("".join(traceback.format_exception(kind, error, where))))

    def show_of_thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None:
            show(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)

    sys.excepthook = show
    threading.excepthook = show_of_thread


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
