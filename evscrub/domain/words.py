# SPDX-License-Identifier: Apache-2.0
"""Say numbers and durations in words, for people. Pure."""

from datetime import timedelta


def in_words(seconds: float) -> str:
    """Say a duration, to its two largest units."""
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


def count(number: int, one: str, many: str | None = None) -> str:
    """Say a number of things."""
    return f"{number} {one if number == 1 else many or one + 's'}"
