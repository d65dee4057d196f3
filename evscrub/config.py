# SPDX-License-Identifier: Apache-2.0
"""Reads the configuration: evscrub's file, laid over Glance's.

Glance's own configuration names the database, the bus and the stores, so evscrub reads it first and
its own file after it. What evscrub logs and where is set by its own file alone, or else two
services would write to glance-api's log.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import oslo_messaging
from oslo_config import cfg
from oslo_log import log

from evscrub.options import DEFAULT_GLANCE_CONFIG_FILE, GROUPS, bootstrap_opts


class ConfigError(Exception):
    """A configuration that evscrub cannot run with; the message says what, where and what to do."""


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
        " named in it by glance_config_files",
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

    :param config_files: evscrub's own; None looks in the usual places.
    :returns: the whole, which is the global ``cfg.CONF`` because glance_store reads that, and the
        part of evscrub's own files, for logging.
    :raises ConfigError: a file is missing or a value is wrong.
    """
    files = list(find_config_files() if config_files is None else config_files)
    own = _read_own(files)
    glance_files = list(own.glance_config_files)
    if glance_files == [DEFAULT_GLANCE_CONFIG_FILE] and not Path(glance_files[0]).exists():
        glance_files = []
    oslo_messaging.set_transport_defaults("glance")
    _read_all(cfg.CONF, [*glance_files, *files])
    return cfg.CONF, own


def reload(conf: cfg.ConfigOpts, own: cfg.ConfigOpts) -> list[str]:
    """Read the files again and apply mutable options.

    :returns: the options that changed, as ``[group] option``.
    :raises ConfigError: a file is missing or a value is wrong; nothing was applied then.
    """
    try:
        # Read elsewhere first, since a change that fails half-way would stay half applied.
        _read_own(own.config_file)
        _read_all(cfg.ConfigOpts(), conf.config_file)
        own.mutate_config_files()
        changed = conf.mutate_config_files()
    except (cfg.Error, ValueError, OSError, ConfigError) as error:
        raise ConfigError(f"Configuration not reloaded: {error}") from None
    return sorted(f"[{group or 'DEFAULT'}] {name}" for group, name in changed)


def _read_own(files: list[str]) -> cfg.ConfigOpts:
    own = cfg.ConfigOpts()
    log.register_options(own)
    own.register_opts(bootstrap_opts)
    _read(own, files)
    return own


def _read_all(conf: cfg.ConfigOpts, files: list[str]) -> None:
    """Read files and see that each of our options has a value that it may have."""
    for group, opts in GROUPS.items():
        conf.register_opts(opts, None if group == "DEFAULT" else group)
    _read(conf, files)
    for group, opts in GROUPS.items():
        for opt in opts:
            _check(conf, group, opt.name, files)


def _read(conf: cfg.ConfigOpts, files: list[str]) -> None:
    try:
        conf(
            [],
            project="evscrub",
            prog="evscrub",
            default_config_files=files,
            default_config_dirs=[],
        )
    except cfg.ConfigFilesNotFoundError as error:
        raise ConfigError(
            f"cannot read {', '.join(error.config_files)}: name Glance's files in [DEFAULT]"
            " glance_config_files, evscrub's with --config-file"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"one of {', '.join(files)} is not text in UTF-8") from None
    except (cfg.Error, ValueError, OSError) as error:
        raise ConfigError(str(error)) from None
    except SystemExit:
        # oslo.config reads some logging options as if they came from the command line.
        raise ConfigError(f"a logging option in {', '.join(files)} has a wrong value") from None


def _check(conf: cfg.ConfigOpts, group: str, name: str, files: list[str]) -> None:
    """Read a value once, so that a wrong one is told now and not in the middle of work."""
    try:
        getattr(conf if group == "DEFAULT" else conf[group], name)
    except (cfg.Error, ValueError) as error:
        # oslo.config's own text names the last file, whichever one holds the value.
        where = " or ".join(files)
        reason = str(error).rpartition("is not valid: ")[2]
        raise ConfigError(f"[{group}] {name} in {where}: {reason}") from None
