# SPDX-License-Identifier: Apache-2.0
"""``evscrub completion``."""

import argparse

import shtab

_FILES = {"FILE"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "For bash: evscrub completion bash > /etc/bash_completion.d/evscrub; for zsh: evscrub"
        " completion zsh > a file _evscrub in a folder of $fpath."
    )
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)


def main(arguments: argparse.Namespace) -> int:
    parser: argparse.ArgumentParser = arguments.parser
    _complete_files(parser)
    print(shtab.complete(parser, arguments.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Say which options take a file's name; shtab looks for that at each."""
    for action in parser._actions:  # noqa: SLF001 - as shtab itself does
        if action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined] # shtab's own
        for subparser in action.choices.values() if isinstance(action.choices, dict) else ():
            _complete_files(subparser)
