# SPDX-License-Identifier: Apache-2.0
"""The ``evscrub`` command.

Exit codes: 0 success, 1 refused or failed, and those of :mod:`evscrub.domain.refusals`.
"""

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence

# Before anything imports oslo.messaging: libraries import eventlet if it is installed, which takes
# as long as all other imports together, and evscrub has no green threads.
sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type] # None blocks the import
from oslo_service import backend

backend.register_backend_default_hook(lambda: backend.BackendType.THREADING)

from evscrub.commands.parsing import ProgramParser
from evscrub.config.arguments import add_config_arguments
from evscrub.domain.refusals import CannotRunError
from evscrub.telemetry import output
from evscrub.telemetry.redact import install_excepthooks, redact

#: Summary of each subcommand, and the module with its ``add_arguments`` and ``main``.
COMMANDS = {
    "agent": ("run an agent beside Glance, in the foreground", "evscrub.commands.agent"),
    "run": ("the same as agent, which is the documented name", "evscrub.commands.agent"),
    "status": ("show the state of agents", "evscrub.commands.status"),
    "sweep": ("scrub what is due once, or rehearse that", "evscrub.commands.sweep"),
    "list": ("list the images that await scrubbing", "evscrub.commands.list"),
    "show": ("show one image, and what a restore would bring back", "evscrub.commands.show"),
    "check": ("check whether an agent can work here", "evscrub.commands.check"),
    "restore": ("restore pending images", "evscrub.commands.keep"),
    "hold": ("protect pending images from scrubbing", "evscrub.commands.keep"),
    "release": ("release held images, which are due after a whole delay", "evscrub.commands.keep"),
    "retry": ("have failed images looked at now", "evscrub.commands.retry"),
    "demo": ("demonstrate evscrub with a temporary Glance", "evscrub.commands.demo"),
    "completion": ("print a completion script for a shell", "evscrub.commands.completion"),
}

#: As a shell reports a process that SIGINT ended.
_INTERRUPTED = 130

_DESCRIPTION = """\
Event-driven scrubber for OpenStack Glance: deletes the data of images that a
DELETE has left in pending_delete, on time and no faster than stores can bear.
"""
_EPILOG = """\
Run 'evscrub COMMAND --help' for a command's arguments, effects and exit codes.
--config-file, --config-dir and --debug may stand before or after the command.

exit codes:
  0    success
  1    refused or failed; for check: warnings
  2    wrong usage; for check: failures; for status and retry also: no agent
       answers
  69   the database does not answer or cannot be used
  78   the configuration is wrong
  130  interrupted

files:
  /etc/evscrub/evscrub.conf  evscrub's options in oslo.config's format;
                             evscrub.conf.sample describes them.
  /etc/glance/glance-api.conf
                             Glance's database, bus and stores, if [DEFAULT]
                             glance_config_files names this file.

  A file is evscrub's own if its name has evscrub in it, if it sets an option
  that only evscrub has, or if its folder's name begins with evscrub. It is
  Glance's if glance_config_files names it, or if its name or its folder's
  begins with glance. Logging options count in evscrub's own files alone, so
  that evscrub never writes to Glance's log.

signals handled by an agent:
  TERM, INT  finish the deletes under way, release the rest, exit
  HUP        read the configuration again and apply mutable options
  USR2       print a Guru Meditation Report

examples:
  evscrub check                       verify the setup
  evscrub list --due --parked         list what is late or stuck
  evscrub restore 2b7e4a0c-...        undo a DELETE
  evscrub hold --owner 8d7f9a...      keep all deleted images of a project
"""


def make_parser() -> ProgramParser:
    """Return a parser for one command line."""
    return ProgramParser(
        COMMANDS,
        [_add_version, _add_data_dir, add_config_arguments],
        prog="evscrub",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


class _Show(argparse.Action):
    """Print what the function ``module:name`` returns, and exit; only then is it imported."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(pkgutil.resolve_name(str(self.const))())
        parser.exit()


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-V",
        "--version",
        action=_Show,
        nargs=0,
        const="evscrub.version:name_and_version",
        help="show program's version number and exit",
    )


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir",
        action=_Show,
        nargs=0,
        const="evscrub.commands.data_dir:data_dir",
        help="print the folder with the sample configuration, systemd units, alert rules, dashboard"
        " and manual page, and exit",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return the exit code.

    :param arguments: the arguments without the program's name; None for those of the process.
    """
    if arguments is None:  # run as the program
        output.open_closed()
        install_excepthooks()
    argv = list(sys.argv[1:] if arguments is None else arguments)
    code = 1  # if a reader leaves before the command has a result
    with output.reader_may_leave():
        try:
            parsed = make_parser().parse(argv)
            code = importlib.import_module(COMMANDS[parsed.command][1]).main(parsed)
        except CannotRunError as error:
            if _was_interrupted(error):
                return _INTERRUPTED
            code = error.exit_code
            for problem in error.problems:
                print(f"evscrub: {redact(problem)}", file=sys.stderr)
        except KeyboardInterrupt:
            code = _INTERRUPTED
    return code


def _was_interrupted(error: BaseException) -> bool:
    """Return whether Ctrl-C caused an error: one in a query leaves its connection unusable."""
    cause = error.__context__
    return cause is not None and (isinstance(cause, KeyboardInterrupt) or _was_interrupted(cause))
