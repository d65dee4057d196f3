# SPDX-License-Identifier: Apache-2.0
"""The ``evscrub`` command.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage or configuration, or a database that does not
answer.
"""

import argparse
import difflib
import importlib
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

# Before anything imports oslo.messaging. Nothing here has green threads, yet where eventlet is
# installed libraries import it, which takes as long as all other imports together.
sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type] # None: not to be imported
from oslo_service import backend

backend.register_backend_default_hook(lambda: backend.BackendType.THREADING)

from evscrub import version
from evscrub.config import loader
from evscrub.telemetry import output
from evscrub.telemetry.redact import install_excepthooks, redact

#: What each subcommand does, and the module that has its ``add_arguments`` and ``main``.
COMMANDS = {
    "agent": ("run an agent beside Glance, in the foreground", "evscrub.commands.agent"),
    "list": ("list the images that await scrubbing", "evscrub.commands.list"),
    "check": ("see whether an agent can do its work here", "evscrub.commands.check"),
    "restore": ("bring pending images back whole", "evscrub.commands.keep"),
    "hold": ("keep pending images from being scrubbed", "evscrub.commands.keep"),
    "release": ("let held images be scrubbed again, after a whole delay", "evscrub.commands.keep"),
    "demo": ("show evscrub at work beside a real Glance of its own", "evscrub.commands.demo"),
    "completion": ("print a shell's completion of all this", "evscrub.commands.completion"),
}
_COMPLETION = "completion"

_DESCRIPTION = """\
Event-driven scrubber for OpenStack Glance: deletes the data of images that a
DELETE has left in pending_delete, on time and no faster than stores can bear.
"""
_EPILOG = """\
'evscrub COMMAND --help' tells what a command takes, does and returns.

exit codes:
  0  done
  1  refused or failed, or, of a check, warnings
  2  wrong usage or configuration, a database that does not answer, or, of a
     check, failures

files:
  /etc/evscrub/evscrub.conf  evscrub's options, in oslo.config's format. They
                             are explained in evscrub.conf.sample.
  /etc/glance/glance-api.conf
                             Glance's database, bus and stores are read from
                             it where [DEFAULT] glance_config_files names it.

signals that an agent heeds:
  TERM, INT  finish the deletes under way, release the rest, end
  HUP        read the configuration again and apply what is mutable
  USR2       print a Guru Meditation Report

examples:
  evscrub check                       is all set up as it should be?
  evscrub list --due --parked         what is late, and what is stuck?
  evscrub restore 2b7e4a0c-...        undo a DELETE
"""


class _Parser(argparse.ArgumentParser):
    """A parser that suggests the nearest right option for one that it does not know."""

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Print usage and an error, and exit with 2."""
        options = re.findall(r"--[a-z-]+", self.format_help())
        said = []
        for argument in unknown:
            alike = difflib.get_close_matches(argument.partition("=")[0], options, n=1)
            said.append(argument + (f" (did you mean {alike[0]}?)" if alike else ""))
        self.error(f"unrecognized arguments: {' '.join(said)}")


def make_parser(argv: Sequence[str]) -> _Parser:
    """Make the parser for a command line, with the arguments of the command that it has.

    The others are left out: their modules may need packages that are not installed. The command
    that prints completions has them all.
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
    """Run the command line; returns the exit code."""
    if arguments is None:  # the program itself, not a call from Python
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
