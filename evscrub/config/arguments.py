# SPDX-License-Identifier: Apache-2.0
"""The arguments of all commands that read the configuration.

This module imports no library, so that ``evscrub --help`` need not either.
"""

import argparse
from pathlib import Path


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that commands which read the configuration have in common."""
    parser.add_argument(
        "--config-file",
        action="append",
        type=_file,
        metavar="FILE",
        help="configuration file of evscrub or Glance; may be repeated, later files override"
        " earlier ones (default: evscrub.conf in ~/.evscrub, ~, /etc/evscrub or /etc). Logging"
        " options count only in evscrub's own files; 'evscrub --help' says how these are told",
    )
    parser.add_argument(
        "--config-dir",
        action="append",
        dest="config_file",
        type=_folder,
        metavar="DIR",
        help="folder whose *.conf files are read in the order of their names, as if each were given"
        " by --config-file in this place; may be repeated (default: none)",
    )
    parser.add_argument("--debug", action="store_true", help="log at level DEBUG")


def _file(text: str) -> str:
    """Parse ``--config-file``; a missing file is reported when it is read.

    :raises argparse.ArgumentTypeError: it is empty, or a folder.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("must name a file, and is empty")
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: name it with --config-dir")
    return text


def _folder(text: str) -> str:
    """Parse ``--config-dir``; a missing folder is reported when it is read.

    :raises argparse.ArgumentTypeError: it is empty, or a file.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("must name a folder, and is empty")
    if Path(text).is_file():
        raise argparse.ArgumentTypeError(
            f"{text} is not a folder: name a folder with *.conf files, or the file with"
            " --config-file"
        )
    return text
