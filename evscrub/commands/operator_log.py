# SPDX-License-Identifier: Apache-2.0
"""Log what a person changes by a command, without cluttering the terminal."""

import logging
import os
import pwd
import socket
import sys
from pathlib import Path

from evscrub.config import loader
from evscrub.domain.quoting import quote
from evscrub.telemetry import log_redaction, output

_SYSLOG = Path("/dev/log")


def start(own: loader.OwnOptions, *, debug: bool) -> None:
    """Log where evscrub's files say, or to syslog where they name nothing but the terminal.

    A log file is not created, because the agent, which may run as another user, could not write to
    it; and not rotated. If the log cannot be used, say so and log to syslog.

    :param own: the configuration of evscrub's own files; changed to log as described.
    :param debug: whether to log to the terminal too.
    """
    if (path := _log_file(own)) is not None and not path.exists():
        _forget_files(own)
    own.set_override("log_rotation_type", "none")
    own.set_override("use_stderr", True)  # else oslo.log may write to standard output
    if not (_log_file(own) or own.log_config_append or own.use_journal):
        _use_syslog(own)
    hook = sys.excepthook
    try:
        loader.start_logging(own)
    except loader.ConfigError as error:
        output.say(f"{error}; logging to syslog instead")
        _forget_files(own)
        own.set_override("log_config_append", None)
        own.set_override("use_journal", False)
        _use_syslog(own)
        loader.start_logging(own)
    sys.excepthook = hook  # oslo.log's would only log an unexpected exception
    log_redaction.install()
    if not debug:
        _silence_terminal()


def who() -> tuple[str, str]:
    """Return who runs this command, and the name of this host."""
    user_id = os.getuid()
    try:
        user = pwd.getpwuid(user_id).pw_name
    except KeyError:  # as in a container
        user = f"user {user_id}"
    behind = os.environ.get("SUDO_USER")
    if behind and behind != user:
        user += f" (sudo by {quote(behind)})"
    return user, socket.gethostname()


def _log_file(own: loader.OwnOptions) -> Path | None:
    """Return the log file as oslo.log chooses it, if any."""
    if own.log_file:
        return Path(own.log_dir or "", own.log_file)
    return Path(own.log_dir, "evscrub.log") if own.log_dir else None


def _use_syslog(own: loader.OwnOptions) -> None:
    own.set_override("use_syslog", True)
    if not _SYSLOG.exists():  # as in a container: what is logged is lost
        output.say(
            f"the change is in no log: there is no {_SYSLOG}; start syslog, or name an existing"
            " file in [DEFAULT] log_file"
        )


def _forget_files(own: loader.OwnOptions) -> None:
    for name in ("log_file", "log_dir"):
        own.set_override(name, None)


def _silence_terminal() -> None:
    terminal = (sys.stdout, sys.stderr)
    for logger in log_redaction.loggers():
        for handler in list(logger.handlers):
            if isinstance(handler, logging.StreamHandler) and handler.stream in terminal:
                logger.removeHandler(handler)
