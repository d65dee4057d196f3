# SPDX-License-Identifier: Apache-2.0
"""Find problems in configuration files before anything acts on the files.

Each problem is one sentence that names the option, the file and the line. In evscrub's own files
every option must be known. In Glance's files only the options that evscrub and its libraries read
are checked. An empty value is the option's default or an error.
"""

import contextlib
import copy
import difflib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from oslo_config import cfg, types

from evscrub.config import known_options, ownership
from evscrub.config.files import DEFAULT_GROUP, ConfigFile, Setting, normal_group
from evscrub.config.known_options import KnownOptions, OptionList
from evscrub.config.option_types import NONE, Float, Integer
from evscrub.config.ownership import Owner

#: Longest value of an option of any type. A longer one is a mistake.
MAX_TEXT_CHARACTERS = 4096
#: Bounds of libraries' numbers that have none: times and counts fit 32 bits, sizes 64 bits.
_MAX_NUMBER = 2**31 - 1
_MAX_SIZE = 2**63 - 1
#: Library options that evscrub does not use: no agent makes remote calls.
_UNREAD = re.compile(r"DEFAULT\.rpc_.*")
_VARIABLE = re.compile(r"OS_(.+?)__(.+)", re.IGNORECASE)
_ALIKE_VARIABLE = 0.85


@dataclass(frozen=True)
class Sources:
    """Configuration files in reading order; later files override earlier ones.

    :param files: all files, parsed.
    :param own: paths of the files that are not Glance's.
    """

    files: Sequence[ConfigFile]
    own: frozenset[str]

    @property
    def paths(self) -> list[str]:
        """Paths of all files, in reading order."""
        return [file.path for file in self.files]

    def of_logging(self) -> "Sources":
        """Return the files whose logging options count: those that are certainly evscrub's."""
        files = [
            file
            for file in self.files
            if file.path in self.own and ownership.owner_of(file) is Owner.EVSCRUB
        ]
        return Sources(files, self.own)

    def find(self, group: str, opt: cfg.Opt) -> Setting | None:
        """Return the line that sets the value of an option, chosen as oslo.config does.

        :returns: None if no file sets the option.
        """
        names = list(known_options.names_of(opt, group))
        for file in reversed(self.files):
            for wanted in names:
                for setting in reversed(file.settings):
                    if (setting.group, setting.name) == wanted:
                        return setting
        return None


def problems(sources: Sources, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return every problem in the files and in the environment.

    :param sources: the files.
    :param environment: may set options as ``OS_GROUP__NAME``, which override the files.
    :returns: one sentence for each problem.
    :raises oslo_config.cfg.Error: ``config_source`` names a source that cannot be read.
    """
    of_own = Sources([file for file in sources.files if file.path in sources.own], sources.own)
    log = wrong_values(sources.of_logging(), known_options.of_log(), environment)
    of_all = [*known_options.of_evscrub(), *known_options.of_services()]
    values = wrong_values(sources, of_all, environment)
    found = [*swallowed_lines(of_own), *log, *values, *_unknown_variables(environment)]
    enabled = _enabled_backends(sources)
    sources_named = _config_sources(of_own)
    groups = {normal_group(header.name) for file in of_own.files for header in file.headers}
    if known_options.store_groups(enabled).isdisjoint(groups):
        # Without a group of a store there is no need to load the stores' options, which is slow.
        return [*found, *_unknown(of_own, known_options.known_without_stores(sources_named))]
    stores, _ = known_options.of_stores(enabled)
    found += wrong_values(of_own, stores, environment)
    return [*found, *_unknown(of_own, known_options.known(enabled, sources_named))]


def swallowed_lines(sources: Sources) -> list[str]:
    """Return a problem for each value in evscrub's files that an indented line continues.

    A value whose lines, except the last, all end with a comma is continued on purpose.
    """
    return [
        f"[{setting.group}] {setting.name} in {setting.where}: line {setting.swallows} is indented,"
        " so it is read as a part of this value; remove the indentation, or end the line before"
        " it with a comma if it belongs to the value"
        for file in sources.files
        if file.path in sources.own
        for setting in file.settings
        if setting.swallows
    ]


def wrong_values(
    sources: Sources,
    options: OptionList,
    environment: Mapping[str, str] = os.environ,
) -> list[str]:
    """Return a problem for each of the given options whose value is wrong.

    :param sources: the files.
    :param options: the options to check, by group.
    :param environment: may set options as ``OS_GROUP__NAME``, which override the files.
    """
    found = []
    conf = reading(sources.paths, options)
    for group, opts in options:
        for opt in opts:
            setting = sources.find(group, opt)
            variable = _variable(group, opt.dest)
            if variable in environment:
                place, text = f"the environment variable {variable}", environment[variable]
            elif setting is not None and (
                setting.file in sources.own or not _UNREAD.fullmatch(f"{group}.{opt.dest}")
            ):
                place, text = setting.where, setting.text
            else:
                continue
            if reason := _reason(conf, group, opt, text):
                found.append(f"[{group}] {opt.dest} in {place}: {reason}")
    return found


def _reason(conf: cfg.ConfigOpts, group: str, opt: cfg.Opt, text: str) -> str | None:
    """Return what is wrong with a value, or None."""
    if len(text) > MAX_TEXT_CHARACTERS:
        return f"is longer than {MAX_TEXT_CHARACTERS} characters"
    try:
        value = (conf if group == DEFAULT_GROUP else conf[group])[opt.dest]
    except RecursionError:
        return "refers to itself; write $$ for a dollar sign"
    except ValueError as error:
        return _wrong(opt, text, error) if text else _empty(opt)
    except cfg.Error:  # not quoted, because its text has the value
        return "refers to an option that does not exist; write $$ for a dollar sign"
    if not text and value is None and opt.default is not None:
        return _empty(opt)
    return _out_of_bounds(opt, value) if isinstance(opt.type, types.Number) else None


def _wrong(opt: cfg.Opt, text: str, error: ValueError) -> str:
    said = str(error).rpartition("is not valid: ")[2]
    if said.startswith(("invalid literal", "could not convert")):  # Python's own words
        whole = "a whole" if isinstance(opt.type, types.Integer) else "a"
        return f"must be {whole} number, not {text!r}"
    return said


def _empty(opt: cfg.Opt) -> str:
    default = ",".join(opt.default) if isinstance(opt.default, list) else opt.default
    none = (
        f", the word {NONE} for {opt.type.none_means}," if hasattr(opt.type, "none_means") else ""
    )
    return f"is empty; set a value{none} or remove the line to use the default, {default}"


def _out_of_bounds(opt: cfg.Opt, value: float | None) -> str | None:
    if value is None or isinstance(opt.type, Integer | Float):
        return None
    is_size = re.search("bytes|size", opt.dest) and "pool" not in opt.dest
    limit = _MAX_SIZE if is_size else _MAX_NUMBER
    if not math.isfinite(value) or abs(value) > limit:
        return f"must be a finite number of at most {limit}"
    return None


def reading(paths: Sequence[str], options: OptionList) -> cfg.ConfigOpts:
    """Read files into a new configuration; the one in use does not change.

    :param paths: existing, readable files.
    :param options: options to register, by group.
    """
    conf = cfg.ConfigOpts()
    for group, opts in options:
        for opt in opts:
            registered = copy.copy(opt)
            # This copy is only checked: oslo.config must not warn about a deprecated option here.
            registered.deprecated_for_removal = False
            with contextlib.suppress(cfg.DuplicateOptError):
                conf.register_opt(registered, None if group == DEFAULT_GROUP else group)
    conf(
        [],
        project="evscrub",
        prog="evscrub",
        default_config_files=list(paths),
        default_config_dirs=[],
    )
    return conf


def _unknown(own: Sources, known: KnownOptions) -> Iterator[str]:
    """Yield a problem for each group and option in evscrub's files that is not known."""
    for file in own.files:
        reported = set()
        for header in file.headers:
            group = normal_group(header.name)
            if known.has_group(group) or group in reported:
                continue
            reported.add(group)
            names = [setting.name for setting in file.settings if setting.group == group]
            meant = known.nearest_group(header.name, names)
            yield (
                f"[{header.name}] in {file.path}:{header.line} is no group that evscrub reads;"
                + (f" did you mean [{meant}]?" if meant else _FOREIGN)
            )
        for setting in file.settings:
            if setting.group in reported or known.has(setting.group, setting.name):
                continue
            nearest = known.nearest(setting.group, setting.name)
            yield (
                f"[{setting.group}] {setting.name} in {setting.where} is no option that evscrub"
                f" reads;{_suggest(setting.group, nearest)}"
            )


_FOREIGN = (
    " if it is Glance's, set it in a file that [DEFAULT] glance_config_files names or whose name"
    " begins with glance"
)


def _suggest(group: str, nearest: tuple[str, str] | None) -> str:
    if nearest is None:
        return _FOREIGN
    meant, name = nearest
    return f" did you mean {name}?" if meant == group else f" did you mean {name} in [{meant}]?"


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a problem for each variable that looks like a misspelled option of evscrub.

    Variables of other services in the same environment are ignored.
    """
    known = {
        _variable(group, opt.dest): None
        for group, opts in known_options.known_without_stores_list()
        for opt in opts
    }
    ours = [
        _variable(group, opt.dest)
        for group, opts in (*known_options.of_evscrub(), known_options.of_log()[0])
        for opt in opts
    ]
    groups = {group.lower() for group, _ in known_options.of_evscrub()} - {DEFAULT_GROUP.lower()}
    for variable in sorted(set(environment) - set(known)):
        match = _VARIABLE.fullmatch(variable)
        if match is None:
            continue
        in_our_group = match[1].lower() in groups
        alike = difflib.get_close_matches(variable.upper(), ours, n=1, cutoff=_ALIKE_VARIABLE)
        if in_our_group or alike:
            meant = alike or difflib.get_close_matches(variable.upper(), ours, n=1, cutoff=0)
            yield (
                f"the environment variable {variable} is no option that evscrub reads; did you mean"
                f" {meant[0]}?"
            )


def _variable(group: str, name: str) -> str:
    return f"OS_{group.upper()}__{name.upper()}"


def _enabled_backends(sources: Sources) -> dict[str, str]:
    """Return the types of a multi-store Glance's stores by name; empty if the value is wrong."""
    options = [pair for pair in known_options.of_evscrub() if pair[0] == DEFAULT_GROUP]
    try:
        return dict(reading(sources.paths, options).enabled_backends or {})
    except (cfg.Error, ValueError):
        return {}


def _config_sources(own: Sources) -> list[str]:
    return [
        name.strip()
        for file in own.files
        for setting in file.settings
        if (setting.group, setting.name) == (DEFAULT_GROUP, known_options.CONFIG_SOURCE)
        for name in setting.text.split(",")
    ]
