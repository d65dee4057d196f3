# SPDX-License-Identifier: Apache-2.0
"""Parse configuration files with line numbers, to report where an option is set.

oslo.config knows no line, and not always the right file. Its own parser is used here, so both agree
on the meaning of a line.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from oslo_config import iniparser

DEFAULT_GROUP = "DEFAULT"


class UnreadableError(Exception):
    """A configuration file cannot be read; the message names the file, the line and the reason."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One line that sets an option.

    :param group: name of the group, as :func:`normal_group` returns it.
    :param line: line number, from 1.
    :param text: the value as written, without quotes; may be empty.
    :param swallows: line number of an indented line that continues the value although the line
        before it does not end with a comma; None if there is none.
    """

    group: str
    name: str
    file: str
    line: int
    text: str
    swallows: int | None = None

    @property
    def where(self) -> str:
        """Position of the line, as ``FILE:LINE``."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class GroupHeader:
    """One line that starts a group.

    :param name: name of the group, as written.
    :param line: line number, from 1.
    """

    name: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The groups and settings of a configuration file, in the order of its lines."""

    path: str
    headers: Sequence[GroupHeader]
    settings: Sequence[Setting]


def normal_group(name: str) -> str:
    """Return a group's name as oslo.config compares it: in lower case, except ``DEFAULT``."""
    return name if name == DEFAULT_GROUP else name.lower()


def read(path: str) -> ConfigFile:
    """Parse a file.

    :raises UnreadableError: the file is missing, cannot be read or is not UTF-8, or a line is
        neither a group, an option nor a comment.
    """
    parser = _Parser(path)
    try:
        with Path(path).expanduser().open(encoding="utf-8") as file:
            parser.parse(parser.count(file))
    except iniparser.ParseError as error:
        # The line itself is left out, because it may contain a password.
        raise UnreadableError(f"{path}:{error.lineno}: {error.msg}") from None
    except UnicodeDecodeError:
        raise UnreadableError(f"{path} is not UTF-8 text") from None
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # a NUL; an unknown ~user
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableError(
            f"cannot read {path} ({reason}): name Glance's files in [DEFAULT]"
            " glance_config_files, evscrub's with --config-file or --config-dir"
        ) from None
    return ConfigFile(path, parser.headers, parser.settings)


class _Parser(iniparser.BaseParser):
    """Collect settings and group headers with their line numbers."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._group: str | None = None
        #: First lines of options that are not complete yet: a value may continue below.
        self._begun: deque[int] = deque()
        self.headers: list[GroupHeader] = []
        self.settings: list[Setting] = []

    def count(self, lines: Iterable[str]) -> Iterator[str]:
        """Pass lines on to :meth:`parse` and record those that start an option."""
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
        # Continuation lines are consecutive: a blank line or a comment ends the value.
        unannounced = (n for n, part in enumerate(value[:-1], line + 1) if not part.endswith(","))
        swallows = next(unannounced, None)
        self.settings.append(Setting(self._group, key, self._path, line, text, swallows))
