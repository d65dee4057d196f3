# SPDX-License-Identifier: Apache-2.0
"""Format numbers and durations for people. Pure."""

import unicodedata
from datetime import timedelta


def in_words(seconds: float) -> str:
    """Format a duration in its largest unit and the one below, such as ``3 h 20 min``.

    :param seconds: at least 0; below 1 the result is in milliseconds.
    """
    if not seconds:
        return "0 s"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    span = timedelta(seconds=round(seconds))
    hours, rest = divmod(span.seconds, 3600)
    parts = [
        (span.days, "days" if span.days != 1 else "day"),
        (hours, "h"),
        (rest // 60, "min"),
        (rest % 60, "s"),
    ]
    first = next(index for index, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)


def in_short(seconds: int) -> str:
    """Format a duration in at most two units without spaces, such as ``3h20m``.

    :param seconds: whole seconds, negative for a time that is past.
    """
    if seconds < 0:
        return f"-{in_short(-seconds)}"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    first = next((index for index, (number, _) in enumerate(parts) if number), len(parts) - 1)
    shown = [f"{number}{unit}" for number, unit in parts[first : first + 2] if number]
    return "".join(shown) or "0s"


def in_units(size_bytes: float) -> str:
    """Format a size in its largest binary unit, such as ``3.4 GiB``.

    :param size_bytes: at least 0.
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size_bytes < 1023.5:  # noqa: PLR2004 - rounds to 1024
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} PiB"


def count(number: int, one: str, many: str | None = None) -> str:
    """Format a number of things.

    :param one: the noun for one of them.
    :param many: the noun for any other number; by default `one` with an "s".
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def cells_wide(text: str) -> int:
    """Return how many terminal cells a text takes, or an upper bound of it."""
    if text.isascii():
        return len(text)
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)
