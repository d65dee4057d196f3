# SPDX-License-Identifier: Apache-2.0
"""Quote untrusted text in messages. Pure."""

#: Enough for real names. A database column may have 64 KB, and each of many images another text.
LONGEST_CHARACTERS = 200


def shorten(text: str) -> str:
    """Return a text, without its middle if it is longer than :data:`LONGEST_CHARACTERS`."""
    if len(text) <= LONGEST_CHARACTERS:
        return text
    half = LONGEST_CHARACTERS // 2
    return f"{text[:half]}...{text[-half:]}"


def quote(text: str) -> str:
    """Return a text shortened and in quotes, with unprintable characters escaped."""
    return repr(shorten(text))


def printable(text: str) -> str:
    """Return a text with each unprintable character replaced, so that a terminal only shows it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
