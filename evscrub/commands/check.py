# SPDX-License-Identifier: Apache-2.0
"""Check a deployment: ``evscrub check``.

Exit codes are those of oslo.upgradecheck, as of every ``SERVICE-status upgrade check``: 0 success,
1 at least one warning, 2 at least one failure, 255 the check itself failed unexpectedly.
"""

import argparse
import logging
import traceback

from evscrub import checks
from evscrub.checks import report
from evscrub.checks.subject import Subject
from evscrub.commands.status_port import status_port
from evscrub.config import loader
from evscrub.config.arguments import add_config_arguments
from evscrub.telemetry import output

_BROKEN = 255


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check whether an agent can work here: Glance's options, the bus, the database, the stores,"
        " the backlog, and the state of the stores in a running agent. Changes nothing. Each"
        " failure says what to change, and where."
    )
    parser.epilog = (
        "Exit codes, those of oslo.upgradecheck: 0 success, 1 there are warnings, 2 something must"
        " be changed, 255 the check itself failed unexpectedly."
    )
    add_config_arguments(parser)
    parser.add_argument(
        "--agent",
        action="append",
        type=status_port,
        default=[],
        metavar="HOST:PORT",
        help="status port of an agent to ask about its stores; may be repeated (default: [status]"
        " listen)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def main(arguments: argparse.Namespace) -> int:
    try:
        conf, own = loader.load_for(arguments)
    except loader.ConfigError as error:
        # No check can run; report it in the same format, for readers of the JSON.
        return _show(checks.refused(error.problems), as_json=arguments.json)
    _log(own, debug=arguments.debug)
    try:
        found = checks.run(Subject(conf, arguments.agent))
    except loader.ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - reported with an exit code of its own
        # The traceback without the error's text, which may hold a credential.
        trace = "".join(traceback.format_tb(error.__traceback__))
        output.say(f"the check failed unexpectedly\n{trace}{type(error).__name__}")
        return _BROKEN
    return _show(found, as_json=arguments.json)


def _show(found: report.Report, *, as_json: bool) -> int:
    with output.reader_may_leave():
        if as_json:
            print(report.to_json(found))
        else:
            report.show(found)
    return report.worst(found)


def _log(own: loader.OwnOptions, *, debug: bool) -> None:
    """Log to the terminal with ``--debug``, and never to the agent's log."""
    if not debug:
        # The table has everything that matters.
        logging.disable()
        return
    for name in ("log_config_append", "log_file", "log_dir"):
        own.set_override(name, None)
    for name in ("use_syslog", "use_journal", "use_eventlog"):
        own.set_override(name, False)
    own.set_override("use_stderr", True)
    loader.start_logging(own)
