# SPDX-License-Identifier: Apache-2.0
"""Reads configuration files line by line, to tell where an option is set.

oslo.config knows the file of a group, and not always the right one, and no line. Its own parser is
used, so that both agree on what a line means.
"""

import fnmatch
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from oslo_config import iniparser

DEFAULT_GROUP = "DEFAULT"


class UnreadableError(Exception):
    """A file that cannot be read as a configuration; the message says which, where and why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One line that sets an option.

    :param group: the group as oslo.config matches it, see :func:`normal_group`.
    :param line: the number of the line, from 1.
    :param text: the value as written, without quotes; empty where nothing is given.
    :param swallows: the number of an indented line that continues the value although no comma
        before it announces that; None where there is no such line.
    """

    group: str
    name: str
    file: str
    line: int
    text: str
    swallows: int | None = None

    @property
    def where(self) -> str:
        """The place, as ``FILE:LINE``."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class GroupHeader:
    """One line that begins a group, with its name as written."""

    name: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a configuration file sets, in the order of its lines."""

    path: str
    headers: Sequence[GroupHeader]
    settings: Sequence[Setting]


def normal_group(name: str) -> str:
    """Return a group's name as oslo.config matches it: in lower case, but for ``DEFAULT``."""
    return name if name == DEFAULT_GROUP else name.lower()


def read(path: str) -> ConfigFile:
    """Read a file.

    :raises UnreadableError: it is missing, may not be read, is not UTF-8, or has a line that is
        neither a group, an option nor a comment.
    """
    parser = _Parser(path)
    try:
        with Path(path).expanduser().open(encoding="utf-8") as file:
            parser.parse(parser.count(file))
    except iniparser.ParseError as error:
        # Without the line itself, because it may hold a password.
        raise UnreadableError(f"{path}:{error.lineno}: {error.msg}") from None
    except UnicodeDecodeError:
        raise UnreadableError(f"{path} is not text in UTF-8") from None
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, or an unknown user after "~"
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableError(
            f"cannot read {path} ({reason}): name Glance's files in [DEFAULT]"
            " glance_config_files, evscrub's with --config-file"
        ) from None
    return ConfigFile(path, parser.headers, parser.settings)


def is_glance(path: str) -> bool:
    """Return whether a file's name says that it is Glance's, as ``glance-api.conf`` does."""
    name = Path(path).name.lower()
    return fnmatch.fnmatchcase(name, "glance*.conf") and "evscrub" not in name


class _Parser(iniparser.BaseParser):
    """Collects settings and group headers with their lines."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._group: str | None = None
        #: Lines of options that have begun and are not complete: a value may go on below.
        self._begun: deque[int] = deque()
        self.headers: list[GroupHeader] = []
        self.settings: list[Setting] = []

    def count(self, lines: Iterable[str]) -> Iterator[str]:
        """Pass lines on to :meth:`parse` and note those that begin an option."""
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.startswith((" ", "\t", "#", ";", "[")):
                self._begun.append(number)
            yield line

    def new_section(self, section: str) -> None:
        self._group = normal_group(section)
        self.headers.append(GroupHeader(section, self._path, self.lineno))

    def assignment(self, key: str, value: list[str]) -> None:
        line = self._begun.popleft()
        if self._group is None:
            raise iniparser.ParseError("Option before the first [GROUP]", line, key)
        text = "\n".join(value).strip()
        # A continued line follows at once: a blank line or a comment would end the value.
        unannounced = (n for n, part in enumerate(value[:-1], line + 1) if not part.endswith(","))
        swallows = next(unannounced, None)
        self.settings.append(Setting(self._group, key, self._path, line, text, swallows))
