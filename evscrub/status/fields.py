# SPDX-License-Identifier: Apache-2.0
"""Read fields of what an agent answers, which is not trusted. Pure.

Each field is checked, and texts are kept short. They may hold control characters, which the code
that displays them must replace.
"""

from collections.abc import Callable, Mapping
from typing import Any

_MOST_OBJECTS = 1000
_MOST_CHARACTERS = 1000
_HIGHEST = 1e18
#: Some 300 years, which can be formatted.
_MOST_SECONDS = 1e10


class UnreadableError(Exception):
    """Raised if a field of a status is missing or odd; the message names it."""


def mapping(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = found.get(name)
    if not isinstance(value, dict):
        raise UnreadableError(f"{name} is not an object")
    return value


def mappings(found: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = found.get(name)
    if (
        not isinstance(value, list)
        or len(value) > _MOST_OBJECTS
        or not all(isinstance(each, dict) for each in value)
    ):
        raise UnreadableError(f"{name} is not a list of objects")
    return value


def text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise UnreadableError(f"{name} is not a text")
    return value[:_MOST_CHARACTERS]


def flag(found: Mapping[str, Any], name: str) -> bool:
    value = found.get(name)
    if not isinstance(value, bool):
        raise UnreadableError(f"{name} is not true or false")
    return value


def number(found: Mapping[str, Any], name: str) -> float:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableError(f"{name} is not a number")
    if not -_HIGHEST <= value <= _HIGHEST:  # NaN fails every comparison
        raise UnreadableError(f"{name} is not finite")
    return value


def whole(found: Mapping[str, Any], name: str) -> int:
    return max(0, int(number(found, name)))


def seconds(found: Mapping[str, Any], name: str) -> float:
    """Return a time; one below 0 follows from clocks that were set."""
    return min(max(0.0, number(found, name)), _MOST_SECONDS)


def offset(found: Mapping[str, Any], name: str) -> float:
    """Return a time that may be negative."""
    return min(max(-_MOST_SECONDS, number(found, name)), _MOST_SECONDS)


def optional(
    read_it: Callable[[Mapping[str, Any], str], float], found: Mapping[str, Any], name: str
) -> float | None:
    return None if name in found and found[name] is None else read_it(found, name)
