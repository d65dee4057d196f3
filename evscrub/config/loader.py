# SPDX-License-Identifier: Apache-2.0
"""Reads the configuration: evscrub's file, laid over Glance's.

Glance's own configuration names the database, the bus and the stores, so evscrub reads it first and
its own file after it. What evscrub logs and where is set by its own file alone, or else two
services would write to glance-api's log.

Nothing is applied, at start or at a reload, before :mod:`evscrub.config.check` has found all of it
right.
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
    """A configuration that evscrub cannot run with.

    :param problems: each says what is wrong, where, and what to do, and holds no credential of a
        secret option.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(self.problems)


def find_config_files() -> list[str]:
    """Look for evscrub's configuration: in ``~/.evscrub``, ``~``, ``/etc/evscrub`` and ``/etc``."""
    found: list[str] = cfg.find_config_files(project="evscrub", prog="evscrub")
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that reads the configuration."""
    parser.add_argument(
        "--config-file",
        action="append",
        metavar="FILE",
        help="evscrub's configuration; may be given more than once, the last one wins"
        " (default: evscrub.conf in ~/.evscrub, ~, /etc/evscrub or /etc). Glance's own files are"
        " named in it by glance_config_files, or known by their name, glance*.conf",
    )
    parser.add_argument("--debug", action="store_true", help="log at level DEBUG")


def load_for(arguments: argparse.Namespace) -> tuple[cfg.ConfigOpts, cfg.ConfigOpts]:
    """Read the configuration that a command line names; see :func:`load`."""
    conf, own = load(arguments.config_file)
    if arguments.debug:
        own.set_override("debug", True)
    return conf, own


def load(config_files: Sequence[str] | None = None) -> tuple[cfg.ConfigOpts, cfg.ConfigOpts]:
    """Read the configuration.

    :param config_files: files as given with ``--config-file``; None looks in the usual places.
        Those that are Glance's by their name, or that ``glance_config_files`` names too, are
        treated as Glance's: evscrub's are the others.
    :returns: the whole, which is the global ``cfg.CONF`` because glance_store reads that, and the
        part of evscrub's own files, for logging.
    :raises ConfigError: a file is missing, an option in evscrub's files is unknown, or a value is
        wrong.
    """
    given = list(find_config_files() if config_files is None else config_files)
    sources = _find_sources(given)
    _refuse_problems(sources)
    oslo_messaging.set_transport_defaults("glance")
    _read_all(cfg.CONF, sources.paths)
    try:
        _read_each(cfg.CONF)  # also what comes from elsewhere, by config_source
    except (cfg.Error, ValueError) as error:
        raise ConfigError(str(error)) from None
    return cfg.CONF, _read_own([path for path in given if path in sources.own])


def reload(conf: cfg.ConfigOpts, own: cfg.ConfigOpts) -> list[str]:
    """Read the files again and apply mutable options.

    :returns: the options that changed, as ``[group] option``.
    :raises ConfigError: a file is missing, an option is unknown or a value is wrong, and nothing
        was applied; or the files changed meanwhile, and the values of `conf` are not to be used.
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
    # What was applied must be what was found right, and not a file that is only half written.
    if _read_files(conf.config_file) != sources.files:
        raise ConfigError("the files changed while they were read; send SIGHUP again")
    return sorted(f"[{group or 'DEFAULT'}] {name}" for group, name in changed)


def start_logging(own: cfg.ConfigOpts) -> None:
    """Log where evscrub's own files say.

    :param own: the part of evscrub's own files, as :func:`load` returns it.
    :raises ConfigError: it cannot be done, as with a folder that is not there.
    """
    try:
        logging_setup.start(own)
    except logging_setup.LoggingError as error:
        raise ConfigError(f"{error}{_log_settings(own)}") from None


def _log_settings(own: cfg.ConfigOpts) -> str:
    """Say which logging options are set, and where."""
    sources = Sources(_read_files(own.config_file), frozenset(own.config_file))
    places = [
        f"{opt.dest} in {setting.where}"
        for group, opts in known_options.of_log()
        for opt in opts
        if opt not in bootstrap_opts and (setting := sources.find(group, opt))
    ]
    return f"; check {', '.join(places)}" if places else ""


def _find_sources(given: list[str]) -> Sources:
    """Tell evscrub's files from Glance's and read them in their order."""
    own = [path for path in given if not files.is_glance(path)]
    own_files = Sources(_read_files(own), frozenset(own))
    # Without a right value there is nothing to go on with.
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
    """Read each of our options once, so that a wrong value is told here."""
    for group, opts in GROUPS.items():
        for opt in opts:
            (conf if group == "DEFAULT" else conf[group])[opt.dest]
