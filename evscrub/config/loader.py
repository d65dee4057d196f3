# SPDX-License-Identifier: Apache-2.0
"""Load the configuration: Glance's files, overridden by evscrub's own.

Glance's files define the database, the bus and the stores. Logging options count only in files that
are certainly evscrub's, see :mod:`evscrub.config.ownership`, because two services must not write to
glance-api's log.

At start and at a reload :mod:`evscrub.config.check` checks all files before any value is applied.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import oslo_messaging
from oslo_config import cfg
from oslo_log import log

from evscrub.config import check, files, known_options, logging_setup, ownership
from evscrub.config.check import Sources
from evscrub.config.options import DEFAULT_GLANCE_CONFIG_FILE, GROUPS, bootstrap_opts
from evscrub.config.ownership import Owner
from evscrub.config.settings import status_address
from evscrub.domain.refusals import CannotRunError


class ConfigError(CannotRunError):
    """evscrub cannot run with this configuration.

    :param problems: sentences that say what is wrong, where, and what to do, without the values of
        secret options.
    """

    exit_code = os.EX_CONFIG  # 78


def find_config_files() -> list[str]:
    """Return the first ``evscrub.conf`` of ``~/.evscrub``, ``~``, ``/etc/evscrub`` and ``/etc``."""
    # Project and program have the same name, so each file is found twice.
    return list(dict.fromkeys(cfg.find_config_files(project="evscrub", prog="evscrub")))


class OwnOptions(cfg.ConfigOpts):
    """The logging options, of evscrub's files alone.

    :param given: files and folders as given at start, for a reload.
    :param of_glance: the value of ``glance_config_files`` at start.
    :param sources: all files that were read last.
    """

    def __init__(self, given: Sequence[str], of_glance: Sequence[str], sources: Sources) -> None:
        super().__init__()
        self.given = given
        self.of_glance = of_glance
        self.sources = sources


def load_for(arguments: argparse.Namespace) -> tuple[cfg.ConfigOpts, OwnOptions]:
    """Load the configuration that a command line names.

    :param arguments: parsed by a parser with the arguments that
        :func:`evscrub.config.arguments.add_config_arguments` adds.
    :returns: as :func:`load`.
    :raises ConfigError: as :func:`load`.
    """
    conf, own = load(arguments.config_file)
    if arguments.debug:
        own.set_override("debug", True)
    return conf, own


def load(paths: Sequence[str] | None = None) -> tuple[cfg.ConfigOpts, OwnOptions]:
    """Check and load the configuration.

    :param paths: files and folders from ``--config-file`` and ``--config-dir``, in their order;
        None searches as :func:`find_config_files`. Which of them are evscrub's and which Glance's,
        :mod:`evscrub.config.ownership` and ``glance_config_files`` tell.
    :returns: the whole configuration, which is the global ``cfg.CONF`` because glance_store reads
        that, and the configuration of evscrub's own files alone, for logging.
    :raises ConfigError: a file is missing, an option is unknown in a file that is not Glance's, or
        a value is wrong.
    """
    given = list(find_config_files() if paths is None else paths)
    of_glance, sources = _find_sources(given)
    _refuse_problems(sources)
    oslo_messaging.set_transport_defaults("glance")
    _read_all(cfg.CONF, sources.paths)
    try:
        _read_each(cfg.CONF)  # includes values from config_source, which were not checked above
    except (cfg.Error, ValueError) as error:
        raise ConfigError(str(error)) from None
    own = OwnOptions(given, of_glance, sources)
    log.register_options(own)
    own.register_opts(bootstrap_opts)
    _read(own, sources.of_logging().paths)
    return cfg.CONF, own


def reload(conf: cfg.ConfigOpts, own: OwnOptions) -> list[str]:
    """Read the files again, with those that a folder has gained, and apply mutable options.

    :param conf: the whole configuration, as :func:`load` returns it.
    :param own: the configuration of evscrub's own files, as :func:`load` returns it.
    :returns: the options that changed, as ``[group] option``.
    :raises ConfigError: a file is missing, an option is unknown or a value is wrong, and nothing
        was applied; or the files changed while they were read, and `conf` must not be used until
        a later reload succeeds.
    """
    _, sources = _find_sources(own.given, own.of_glance)
    _refuse_problems(sources)
    try:
        own.default_config_files = sources.of_logging().paths
        with logging_setup.kept_if_it_fails():
            own.mutate_config_files()
        conf.default_config_files = sources.paths
        changed = conf.mutate_config_files()
        _read_each(conf)
    except logging_setup.LoggingError as error:
        raise ConfigError(f"{error}{_log_settings(sources)}") from None
    except (cfg.Error, ValueError, OSError, SystemExit) as error:
        raise ConfigError(str(error)) from None
    # The values that were applied must be those that were checked, not a half-written file's.
    if _find_sources(own.given, own.of_glance)[1].files != sources.files:
        raise ConfigError("the files changed while they were read; send SIGHUP again")
    own.sources = sources
    return sorted(f"[{group or 'DEFAULT'}] {name}" for group, name in changed)


def start_logging(own: OwnOptions) -> None:
    """Set logging up by evscrub's own files.

    :param own: the configuration of evscrub's own files, as :func:`load` returns it.
    :raises ConfigError: logging cannot be set up, for example because a folder is missing.
    """
    try:
        logging_setup.start(own)
    except logging_setup.LoggingError as error:
        raise ConfigError(f"{error}{_log_settings(own.sources)}") from None


def ignored_logging(sources: Sources) -> list[str]:
    """Return each place where a logging option is ignored because nothing tells whose file it is.

    :returns: places as ``OPTION in FILE:LINE``.
    """
    counted = sources.of_logging().paths
    names = {
        name
        for group, opts in _logging_options()
        for opt in opts
        for name in known_options.names_of(opt, group)
    }
    return [
        f"{setting.name} in {setting.where}"
        for file in sources.files
        if file.path in sources.own and file.path not in counted
        for setting in file.settings
        if (setting.group, setting.name) in names
    ]


def _logging_options() -> known_options.OptionList:
    return [
        (group, [opt for opt in opts if opt not in bootstrap_opts])
        for group, opts in known_options.of_log()
    ]


def _log_settings(sources: Sources) -> str:
    """Return a hint that names the logging options that are set, and where; empty if none is."""
    of_logging = sources.of_logging()
    places = [
        f"{opt.dest} in {setting.where}"
        for group, opts in _logging_options()
        for opt in opts
        if (setting := of_logging.find(group, opt))
    ]
    return f"; check {', '.join(places)}" if places else ""


def _find_sources(
    given: Sequence[str], of_glance: Sequence[str] | None = None
) -> tuple[Sequence[str], Sources]:
    """Separate evscrub's files from Glance's and parse all in reading order.

    :param of_glance: the value of ``glance_config_files``; None reads it from the files.
    :returns: the value of ``glance_config_files``, and the files.
    """
    parsed = _read_files(given)
    own = [file for file in parsed if ownership.owner_of(file) is not Owner.GLANCE]
    if of_glance is None:
        of_glance = _glance_config_files(Sources(own, frozenset(file.path for file in own)))
    # A folder of Glance's may have evscrub's file in it, which is read only where it is given.
    glances = [
        file
        for file in _read_files(of_glance)
        if file.path in of_glance or ownership.owner_of(file) is not Owner.EVSCRUB
    ]
    named = {os.path.realpath(file.path) for file in glances}
    return of_glance, Sources(
        [*glances, *parsed],
        frozenset(file.path for file in own if os.path.realpath(file.path) not in named),
    )


def _glance_config_files(own: Sources) -> Sequence[str]:
    """Return the value of ``glance_config_files``, without the default if that is not there.

    The option is checked before all others, because it decides which other files are read.
    """
    option = [("DEFAULT", bootstrap_opts)]
    try:
        wrong = check.wrong_values(own, option)
        if wrong := [*check.swallowed_lines(own), *wrong]:
            raise ConfigError(*wrong)
        named = list(check.reading(own.paths, option).glance_config_files)
    except (cfg.Error, ValueError, OSError) as error:
        raise ConfigError(str(error)) from None
    if named == [DEFAULT_GLANCE_CONFIG_FILE] and not Path(named[0]).exists():
        return []
    return named


def _refuse_problems(sources: Sources) -> None:
    try:
        problems = check.problems(sources)
    except (cfg.Error, ValueError, OSError) as error:
        raise ConfigError(str(error)) from None
    if problems:
        raise ConfigError(*problems)


def _read_files(paths: Iterable[str]) -> list[files.ConfigFile]:
    try:
        return [files.read(path) for path in ownership.expand(paths)]
    except files.UnreadableError as error:
        raise ConfigError(str(error)) from None


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
    """Read each of evscrub's options once, so that a wrong value raises here.

    :raises ValueError: a value is wrong, or two do not fit together.
    """
    for group, opts in GROUPS.items():
        for opt in opts:
            (conf if group == "DEFAULT" else conf[group])[opt.dest]
    status_address(conf)
