# SPDX-License-Identifier: Apache-2.0
"""The ``evscrub`` command.

Exit codes: 0 success, 1 refused or failed, 2 wrong usage or configuration, or the database does not
answer.
"""

import argparse
import difflib
import importlib
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

# Before anything imports oslo.messaging: libraries import eventlet if it is installed, which takes
# as long as all other imports together, and evscrub has no green threads.
sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type] # None blocks the import
from oslo_service import backend

backend.register_backend_default_hook(lambda: backend.BackendType.THREADING)

from evscrub import version
from evscrub.config import loader
from evscrub.telemetry import output
from evscrub.telemetry.redact import install_excepthooks, redact

#: Summary of each subcommand, and the module with its ``add_arguments`` and ``main``.
COMMANDS = {
    "agent": ("run an agent beside Glance, in the foreground", "evscrub.commands.agent"),
    "status": ("show the state of agents", "evscrub.commands.status"),
    "sweep": ("scrub what is due once, or rehearse that", "evscrub.commands.sweep"),
    "list": ("list the images that await scrubbing", "evscrub.commands.list"),
    "check": ("check whether an agent can work here", "evscrub.commands.check"),
    "restore": ("restore pending images", "evscrub.commands.keep"),
    "hold": ("protect pending images from scrubbing", "evscrub.commands.keep"),
    "release": ("release held images, which are due after a whole delay", "evscrub.commands.keep"),
    "retry": ("have failed images looked at now", "evscrub.commands.retry"),
    "demo": ("demonstrate evscrub with a temporary Glance", "evscrub.commands.demo"),
    "completion": ("print a completion script for a shell", "evscrub.commands.completion"),
}
_COMPLETION = "completion"

_DESCRIPTION = """\
Event-driven scrubber for OpenStack Glance: deletes the data of images that a
DELETE has left in pending_delete, on time and no faster than stores can bear.
"""
_EPILOG = """\
Run 'evscrub COMMAND --help' for a command's arguments, effects and exit codes.

exit codes:
  0  success
  1  refused or failed; for check: warnings
  2  wrong usage or configuration, or the database does not answer; for check:
     failures

files:
  /etc/evscrub/evscrub.conf  evscrub's options in oslo.config's format;
                             evscrub.conf.sample describes them.
  /etc/glance/glance-api.conf
                             Glance's database, bus and stores, if [DEFAULT]
                             glance_config_files names this file.

signals handled by an agent:
  TERM, INT  finish the deletes under way, release the rest, exit
  HUP        read the configuration again and apply mutable options
  USR2       print a Guru Meditation Report

examples:
  evscrub check                       verify the setup
  evscrub list --due --parked         list what is late or stuck
  evscrub restore 2b7e4a0c-...        undo a DELETE
"""


class _Parser(argparse.ArgumentParser):
    """A parser that suggests the closest option for an unknown one."""

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Print the usage and an error, and exit with code 2."""
        options = re.findall(r"--[a-z-]+", self.format_help())
        said = []
        for argument in unknown:
            alike = difflib.get_close_matches(argument.partition("=")[0], options, n=1)
            said.append(argument + (f" (did you mean {alike[0]}?)" if alike else ""))
        self.error(f"unrecognized arguments: {' '.join(said)}")


def make_parser(argv: Sequence[str]) -> _Parser:
    """Return the parser for a command line, with the arguments of its command.

    Arguments of other commands are left out, because their modules may need packages that are not
    installed; only the completion command includes all.
    """
    parser = _Parser(
        prog="evscrub",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    release = f"evscrub {version.version_string_with_package()}"
    parser.add_argument("--version", action="version", version=release)
    parser.set_defaults(parser=parser)
    command = next((argument for argument in argv if not argument.startswith("-")), None)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (summary, path) in COMMANDS.items():
        description = f"{summary[0].upper()}{summary[1:]}."
        subparser = subparsers.add_parser(name, help=summary, description=description)
        subparser.set_defaults(subparser=subparser)
        if command in {name, _COMPLETION}:
            importlib.import_module(path).add_arguments(subparser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return the exit code.

    :param arguments: the arguments without the program's name; None for those of the process.
    """
    if arguments is None:  # run as the program
        install_excepthooks()
    argv = list(sys.argv[1:] if arguments is None else arguments)
    code = 0
    with output.reader_may_leave():
        try:
            parsed, unknown = make_parser(argv).parse_known_args(argv)
            if unknown:
                parsed.subparser.refuse(unknown)
            code = importlib.import_module(COMMANDS[parsed.command][1]).main(parsed)
        except loader.ConfigError as error:
            code = 2
            for problem in error.problems:
                print(f"evscrub: {redact(problem)}", file=sys.stderr)
    return code
