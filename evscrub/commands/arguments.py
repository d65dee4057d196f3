# SPDX-License-Identifier: Apache-2.0
"""Argument types shared by several subcommands, and by the parser of all.

This module imports no library, so that ``evscrub --help`` need not either.
"""

import argparse
from collections.abc import Callable

#: Largest number of rows that all databases take as a limit.
_MAX_NATURAL = 2**31 - 1


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """Return a function that parses a whole number between two bounds.

    The function raises ``argparse.ArgumentTypeError`` for another text.
    """

    def parse_number(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or not lowest <= number <= highest:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {lowest} to {highest}, not {text!r}"
            )
        return number

    return parse_number


#: Parse a number of things.
natural = whole_number(0, _MAX_NATURAL)


def name(text: str) -> str:
    """Parse the name of something, without spaces around it.

    :raises argparse.ArgumentTypeError: the text is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text.strip()
