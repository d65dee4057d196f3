# SPDX-License-Identifier: Apache-2.0
"""Show what somebody else wrote in a message, however long it is. Pure."""

#: Enough for the names that people use. A column holds 64 KB, and each of many images another.
LONGEST_CHARACTERS = 200


def shorten(text: str) -> str:
    """Return a text without the middle of one that is longer than :data:`LONGEST_CHARACTERS`."""
    if len(text) <= LONGEST_CHARACTERS:
        return text
    half = LONGEST_CHARACTERS // 2
    return f"{text[:half]}...{text[-half:]}"


def quote(text: str) -> str:
    """Return a shortened text in quotes, with what cannot be printed escaped."""
    return repr(shorten(text))
