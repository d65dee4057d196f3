# SPDX-License-Identifier: Apache-2.0
"""Print a shell's completion script: ``evscrub completion``."""

import argparse

import shtab

from evscrub.telemetry import output

_KINDS = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "For bash: evscrub completion bash > /etc/bash_completion.d/evscrub; for zsh: write the"
        " output of evscrub completion zsh to a file _evscrub in a folder of $fpath."
    )
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)


def main(arguments: argparse.Namespace) -> int:
    parser: argparse.ArgumentParser = arguments.whole_parser()
    _complete_files(parser)
    with output.reader_may_leave():
        print(shtab.complete(parser, arguments.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Mark the options that take the name of a file or folder, for shtab."""
    for action in parser._actions:  # noqa: SLF001 - shtab does the same
        if action.metavar in _KINDS:
            action.complete = _KINDS[action.metavar]  # type: ignore[attr-defined] # shtab's own
        for subparser in action.choices.values() if isinstance(action.choices, dict) else ():
            _complete_files(subparser)
