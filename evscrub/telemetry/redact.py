# SPDX-License-Identifier: Apache-2.0
"""Remove credentials from text; :mod:`evscrub.telemetry.log_redaction` does so for logs.

evscrub's own messages never contain a location URL, but libraries quote URLs in messages and
exceptions, and those of S3 and Swift contain a user's key.
"""

import re
import sys
import threading
import traceback
from types import TracebackType

# All patterns run in linear time on any text: project members choose names that libraries log, and
# a formatter blocks the whole process.
_WORD = re.compile(r"\S+")
_LAST_AT = re.compile(r".*@(?=[\w\[])", re.DOTALL)
# glance_store's s3 driver names hosts as user:key@host, without a scheme.
_HOST_LOGIN = re.compile(r"(?<![^'\"=(,\[])[^/'\"=(,\[@:]+:(?!//)(?=.)", re.DOTALL)
_NAMES = (
    r"(?:credential|signature|sig|token|password|passwd|secret"
    r"|api_?key|access_?key(?:_?id)?|secret_?key)"
)
_PARAMETER = re.compile(rf"({_NAMES}=)[^&\s]+", re.IGNORECASE)
# An item of a dictionary or of JSON.
_ITEM = re.compile(rf"({_NAMES}[\"']: ?b?[\"'])[^\"']+", re.IGNORECASE)


def redact(text: str) -> str:
    """Return `text` with its credentials replaced by ``***``.

    Credentials are ``user:key@`` of a URL or host, and the values of parameters whose name says
    password, key, token or signature, as in ``?password=``, ``X-Amz-Signature=`` or
    ``'password': ``.
    """
    if "@" in text:
        text = _WORD.sub(_redact_logins, text)
    return _ITEM.sub(r"\1***", _PARAMETER.sub(r"\1***", text))


def _redact_logins(match: re.Match[str]) -> str:
    """Replace the login in a word without spaces.

    A key may contain any character, slashes and quotes included, so everything up to the last "@"
    is replaced.
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


def install_excepthooks() -> None:
    """Redact the tracebacks of uncaught exceptions in all threads."""

    def show(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        sys.stderr.write(redact("".join(traceback.format_exception(kind, error, where))))

    def show_of_thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None:
            show(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)

    sys.excepthook = show
    threading.excepthook = show_of_thread
