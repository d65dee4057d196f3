# SPDX-License-Identifier: Apache-2.0
"""Load the configuration: Glance's files, overridden by evscrub's own.

Glance's files define the database, the bus and the stores. Logging options are read only from
evscrub's own files, because two services must not write to glance-api's log.

At start and at a reload :mod:`evscrub.config.check` checks all files before any value is applied.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import oslo_messaging
from oslo_config import cfg
from oslo_log import log

from evscrub.config import check, files, known_options, logging_setup
from evscrub.config.check import Sources
from evscrub.config.options import DEFAULT_GLANCE_CONFIG_FILE, GROUPS, bootstrap_opts


class ConfigError(Exception):
    """evscrub cannot run with this configuration.

    :param problems: sentences that say what is wrong, where, and what to do, without the values of
        secret options.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(self.problems)


def find_config_files() -> list[str]:
    """Return evscrub's files in ``~/.evscrub``, ``~``, ``/etc/evscrub`` or ``/etc``."""
    found: list[str] = cfg.find_config_files(project="evscrub", prog="evscrub")
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that commands which read the configuration have in common."""
    parser.add_argument(
        "--config-file",
        action="append",
        metavar="FILE",
        help="evscrub's configuration file; may be repeated, later files override earlier ones"
        " (default: evscrub.conf in ~/.evscrub, ~, /etc/evscrub or /etc). A file is Glance's if"
        " glance_config_files names it or its name is glance*.conf",
    )
    parser.add_argument("--debug", action="store_true", help="log at level DEBUG")


def load_for(arguments: argparse.Namespace) -> tuple[cfg.ConfigOpts, cfg.ConfigOpts]:
    """Load the configuration that a command line names.

    :param arguments: parsed by a parser with the arguments of :func:`add_arguments`.
    :returns: as :func:`load`.
    :raises ConfigError: as :func:`load`.
    """
    conf, own = load(arguments.config_file)
    if arguments.debug:
        own.set_override("debug", True)
    return conf, own


def load(config_files: Sequence[str] | None = None) -> tuple[cfg.ConfigOpts, cfg.ConfigOpts]:
    """Check and load the configuration.

    :param config_files: files from ``--config-file``; None searches as :func:`find_config_files`.
        Files that are Glance's by their name, or that ``glance_config_files`` names, are treated
        as Glance's; the others are evscrub's.
    :returns: the whole configuration, which is the global ``cfg.CONF`` because glance_store reads
        that, and the configuration of evscrub's own files alone, for logging.
    :raises ConfigError: a file is missing, an option in evscrub's files is unknown, or a value is
        wrong.
    """
    given = list(find_config_files() if config_files is None else config_files)
    sources = _find_sources(given)
    _refuse_problems(sources)
    oslo_messaging.set_transport_defaults("glance")
    _read_all(cfg.CONF, sources.paths)
    try:
        _read_each(cfg.CONF)  # includes values from config_source, which were not checked above
    except (cfg.Error, ValueError) as error:
        raise ConfigError(str(error)) from None
    return cfg.CONF, _read_own([path for path in given if path in sources.own])


def reload(conf: cfg.ConfigOpts, own: cfg.ConfigOpts) -> list[str]:
    """Read the files again and apply mutable options.

    :param conf: the whole configuration, as :func:`load` returns it.
    :param own: the configuration of evscrub's own files, as :func:`load` returns it.
    :returns: the options that changed, as ``[group] option``.
    :raises ConfigError: a file is missing, an option is unknown or a value is wrong, and nothing
        was applied; or the files changed while they were read, and `conf` must not be used until
        a later reload succeeds.
    """
    sources = Sources(_read_files(conf.config_file), frozenset(own.config_file))
    _refuse_problems(sources)
    try:
        with logging_setup.kept_if_it_fails():
            own.mutate_config_files()
        changed = conf.mutate_config_files()
        _read_each(conf)
    except logging_setup.LoggingError as error:
        raise ConfigError(f"{error}{_log_settings(own)}") from None
    except (cfg.Error, ValueError, OSError, SystemExit) as error:
        raise ConfigError(str(error)) from None
    # The values that were applied must be those that were checked, not a half-written file's.
    if _read_files(conf.config_file) != sources.files:
        raise ConfigError("the files changed while they were read; send SIGHUP again")
    return sorted(f"[{group or 'DEFAULT'}] {name}" for group, name in changed)


def start_logging(own: cfg.ConfigOpts) -> None:
    """Set logging up by evscrub's own files.

    :param own: the configuration of evscrub's own files, as :func:`load` returns it.
    :raises ConfigError: logging cannot be set up, for example because a folder is missing.
    """
    try:
        logging_setup.start(own)
    except logging_setup.LoggingError as error:
        raise ConfigError(f"{error}{_log_settings(own)}") from None


def _log_settings(own: cfg.ConfigOpts) -> str:
    """Return a hint that names the logging options that are set, and where; empty if none is."""
    sources = Sources(_read_files(own.config_file), frozenset(own.config_file))
    places = [
        f"{opt.dest} in {setting.where}"
        for group, opts in known_options.of_log()
        for opt in opts
        if opt not in bootstrap_opts and (setting := sources.find(group, opt))
    ]
    return f"; check {', '.join(places)}" if places else ""


def _find_sources(given: list[str]) -> Sources:
    """Separate evscrub's files from Glance's and parse all in reading order."""
    own = [path for path in given if not files.is_glance(path)]
    own_files = Sources(_read_files(own), frozenset(own))
    # glance_config_files is checked first, because it decides which other files are read.
    option = [("DEFAULT", bootstrap_opts)]
    try:
        wrong = check.wrong_values(own_files, option)
        if wrong := [*check.swallowed_lines(own_files), *wrong]:
            raise ConfigError(*wrong)
        glance_files = list(check.reading(own, option).glance_config_files)
    except (cfg.Error, ValueError, OSError) as error:
        raise ConfigError(str(error)) from None
    if glance_files == [DEFAULT_GLANCE_CONFIG_FILE] and not Path(glance_files[0]).exists():
        glance_files = []
    glances = {os.path.realpath(path) for path in glance_files}
    own = [path for path in own if os.path.realpath(path) not in glances]
    return Sources(_read_files([*glance_files, *given]), frozenset(own))


def _refuse_problems(sources: Sources) -> None:
    try:
        problems = check.problems(sources)
    except (cfg.Error, ValueError, OSError) as error:
        raise ConfigError(str(error)) from None
    if problems:
        raise ConfigError(*problems)


def _read_files(paths: Iterable[str]) -> list[files.ConfigFile]:
    try:
        return [files.read(path) for path in paths]
    except files.UnreadableError as error:
        raise ConfigError(str(error)) from None


def _read_own(files: list[str]) -> cfg.ConfigOpts:
    own = cfg.ConfigOpts()
    log.register_options(own)
    own.register_opts(bootstrap_opts)
    _read(own, files)
    return own


def _read_all(conf: cfg.ConfigOpts, files: list[str]) -> None:
    for group, opts in GROUPS.items():
        conf.register_opts(opts, None if group == "DEFAULT" else group)
    _read(conf, files)


def _read(conf: cfg.ConfigOpts, files: list[str]) -> None:
    try:
        conf(
            [],
            project="evscrub",
            prog="evscrub",
            default_config_files=files,
            default_config_dirs=[],
        )
    except (cfg.Error, ValueError, OSError) as error:
        raise ConfigError(str(error)) from None


def _read_each(conf: cfg.ConfigOpts) -> None:
    """Read each of evscrub's options once, so that a wrong value raises here."""
    for group, opts in GROUPS.items():
        for opt in opts:
            (conf if group == "DEFAULT" else conf[group])[opt.dest]
