# SPDX-License-Identifier: Apache-2.0
"""The ``evscrub`` command.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage or configuration.
"""

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence

# Where eventlet is installed, as beside Glance it is, futurist imports it, and it complains.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")

# Before anything imports oslo.messaging: it would pick eventlet otherwise, which is deprecated.
from oslo_service import backend  # noqa: E402

backend.register_backend_default_hook(lambda: backend.BackendType.THREADING)

from evscrub import config  # noqa: E402

#: What each subcommand does, and the module that has its ``add_arguments`` and ``main``.
COMMANDS = {
    "agent": ("run an agent beside Glance, in the foreground", "evscrub.commands.agent"),
    "list": ("list the images that await scrubbing", "evscrub.commands.list"),
    "check": ("see whether an agent can do its work here", "evscrub.commands.check"),
    "restore": ("bring pending images back whole", "evscrub.commands.keep"),
    "hold": ("keep pending images from being scrubbed", "evscrub.commands.keep"),
    "release": ("let held images be scrubbed again, after a whole delay", "evscrub.commands.keep"),
    "demo": ("show evscrub at work beside a real Glance of its own", "evscrub.commands.demo"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="evscrub", description="Event-driven scrubber for OpenStack Glance."
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    argv = list(sys.argv[1:] if arguments is None else arguments)
    for name, (summary, path) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary + ".")
        if name in argv:  # the others' modules may need packages that are not installed
            importlib.import_module(path).add_arguments(subparser)
    parsed = parser.parse_args(argv)
    module = importlib.import_module(COMMANDS[parsed.command][1])
    try:
        code: int = module.main(parsed)
    except config.ConfigError as error:
        print(f"evscrub: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code
