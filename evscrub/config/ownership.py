# SPDX-License-Identifier: Apache-2.0
"""Tell evscrub's configuration files from Glance's.

The difference matters twice: logging options count in evscrub's files alone, because two services
must not write to one log; and a name that evscrub does not know is an error unless the file is
Glance's.
"""

import os
from collections.abc import Callable, Iterable
from enum import Enum, auto
from pathlib import Path

from evscrub.config.files import DEFAULT_GROUP, ConfigFile, UnreadableError
from evscrub.config.options import GROUPS, bootstrap_opts

#: Options that only evscrub has. Those of ``[DEFAULT]`` are named as Glance's own.
_OF_EVSCRUB = frozenset(
    (group, opt.dest) for group, opts in GROUPS.items() if group != DEFAULT_GROUP for opt in opts
) | frozenset((DEFAULT_GROUP, opt.dest) for opt in bootstrap_opts)
#: Groups that the file of an API service has, and that evscrub never reads.
_OF_AN_API = frozenset({"keystone_authtoken", "paste_deploy"})
#: A file's folder and the folder above, as in ``glance/conf.d/01-logging.conf``.
_FOLDERS = 2


class Owner(Enum):
    """Whose a configuration file is.

    :cvar UNKNOWN: nothing tells. Its options are checked as evscrub's are, because a misspelled one
        must not pass; its logging options do not count, because it may be Glance's.
    """

    EVSCRUB = auto()
    GLANCE = auto()
    UNKNOWN = auto()


def owner_of(file: ConfigFile) -> Owner:
    """Return whose a file is, by its name, else its options, else its folders.

    Symbolic links are followed: the name of their target counts before that of the link.
    ``glance_config_files`` is not considered.
    """
    paths = [Path(os.path.realpath(Path(file.path).expanduser())), Path(file.path)]
    folders = (part for path in paths for part in reversed(path.parts[:-1][-_FOLDERS:]))
    return (
        _by_names((path.name for path in paths), lambda name: "evscrub" in name)
        or _by_options(file)
        or _by_names(folders, lambda name: name.startswith("evscrub"))
        or Owner.UNKNOWN
    )


def expand(paths: Iterable[str]) -> list[str]:
    """Return the files that paths stand for: a folder for its ``*.conf``, in order of their names.

    :raises UnreadableError: a folder cannot be read. A file that is missing is not looked for.
    """
    return [file for path in paths for file in _files_of(path)]


def _files_of(path: str) -> list[str]:
    folder = Path(path)
    try:
        folder = folder.expanduser()
        if not folder.is_dir():
            return [path]
        return sorted(
            str(entry)
            for entry in folder.iterdir()
            if entry.suffix == ".conf" and not entry.name.startswith(".") and not entry.is_dir()
        )
    except (OSError, ValueError, RuntimeError) as error:  # a NUL; an unknown ~user
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableError(f"cannot read {path} ({reason})") from None


def _by_names(names: Iterable[str], is_evscrubs: Callable[[str], bool]) -> Owner | None:
    for name in map(str.lower, names):
        if is_evscrubs(name):
            return Owner.EVSCRUB
        if name.startswith("glance"):
            return Owner.GLANCE
    return None


def _by_options(file: ConfigFile) -> Owner | None:
    if any((setting.group, setting.name) in _OF_EVSCRUB for setting in file.settings):
        return Owner.EVSCRUB
    if any(setting.group in _OF_AN_API for setting in file.settings):
        return Owner.GLANCE
    return None
