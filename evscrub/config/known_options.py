# SPDX-License-Identifier: Apache-2.0
"""List the options that evscrub's own files may set, and suggest names for misspelled ones.

These are evscrub's options and the options of the libraries that read the same files: oslo.log,
oslo.messaging, oslo.db, oslo.reports, oslo.concurrency, and glance_store with its drivers.
"""

import difflib
import functools
import importlib.metadata
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import oslo_db.options
import oslo_messaging.opts
import oslo_reports.opts
from oslo_config import cfg

from evscrub.config.files import DEFAULT_GROUP, normal_group
from evscrub.config.options import GROUPS, bootstrap_opts

OptionList = Sequence[tuple[str, Sequence[cfg.Opt]]]

#: Groups that evscrub does not read but that many services' files contain, with options that depend
#: on plugins.
_OPEN_GROUPS = frozenset({"keystone_authtoken"})
#: oslo.config's option that names the groups of further configuration sources.
CONFIG_SOURCE = "config_source"
#: Options of the cinder driver without the prefix ``cinder_``.
_CINDER_OTHERS = frozenset({"rootwrap_config", "os_region_name"})
_CINDER_GROUPS = frozenset({"os_brick", "privsep_osbrick"})
_STORE_GROUP = "glance_store"
_SHARED_STORE_GROUP = "backend_defaults"
#: Least similarity of a name to be suggested for another, from 0 to 1; see :mod:`difflib`.
_ALIKE = 0.6


class KnownOptions:
    """Names of options by group, including deprecated names that oslo.config still reads.

    :param options: options by the group in which they are registered.
    :param open_groups: groups in which any name is known.
    :param open_prefixes: prefixes of names that are known in ``[glance_store]`` and
        ``[backend_defaults]``.
    """

    def __init__(
        self,
        options: OptionList,
        open_groups: Iterable[str] = (),
        open_prefixes: Iterable[str] = (),
    ) -> None:
        self._names: dict[str, dict[str, None]] = {}  # as ordered sets
        for group, opts in options:
            self._names.setdefault(normal_group(group), {})
            for opt in opts:
                for in_group, name in names_of(opt, group):
                    self._names.setdefault(in_group, {})[name] = None
        self._open = {normal_group(group) for group in open_groups}
        self._open_prefixes = tuple(open_prefixes)

    def has_group(self, group: str) -> bool:
        """Return whether a group has known options.

        :param group: name of the group, as :func:`normal_group` returns it.
        """
        return group in self._names or group in self._open

    def has(self, group: str, name: str) -> bool:
        """Return whether an option is known.

        :param group: name of its group, as :func:`normal_group` returns it.
        """
        if group in self._open or name in self._names.get(group, ()):
            return True
        return group in {_STORE_GROUP, _SHARED_STORE_GROUP} and name.startswith(self._open_prefixes)

    def nearest_group(self, written: str, names: Collection[str]) -> str | None:
        """Return the known group that an unknown one probably stands for, or None.

        :param written: name of the unknown group.
        :param names: names of the options that are set in it.
        """
        plain = written.strip().lower()
        by_plain = {group.lower(): group for group in self._names}
        if plain in by_plain:
            return by_plain[plain]
        # A group that knows all of the options is a better guess than a similar name.
        for group, known in self._names.items():
            if names and set(names) <= set(known):
                return group
        alike = difflib.get_close_matches(plain, by_plain, n=1, cutoff=_ALIKE)
        return by_plain[alike[0]] if alike else None

    def nearest(self, group: str, written: str) -> tuple[str, str] | None:
        """Return the group and name that an unknown option probably stands for, or None.

        :param group: the group in which it is set.
        :param written: name of the unknown option.
        """
        plain = written.strip().lower().replace("-", "_")
        here = self._names.get(group, {})
        if plain in here:
            return group, plain
        for other, names in self._names.items():
            if plain in names:
                return other, plain
        alike = difflib.get_close_matches(plain, here, n=1, cutoff=_ALIKE)
        if alike:
            return group, alike[0]
        by_name = {name: other for other, names in reversed(self._names.items()) for name in names}
        alike = difflib.get_close_matches(plain, by_name, n=1, cutoff=_ALIKE)
        return (by_name[alike[0]], alike[0]) if alike else None


def names_of(opt: cfg.Opt, group: str) -> Iterator[tuple[str, str]]:
    """Yield each group and name from which oslo.config reads an option; deprecated ones last."""
    yield normal_group(group), opt.dest
    for old in opt.deprecated_opts:
        yield normal_group(old.group or group), old.name or opt.dest


def of_evscrub() -> OptionList:
    """Return evscrub's own options, except the bootstrap options that locate other files."""
    return list(GROUPS.items())


@functools.cache
def of_services() -> OptionList:
    """Return the options of the database and the bus, which Glance's files may set too."""
    found: list[tuple[str, Sequence[cfg.Opt]]] = []
    for options in (
        oslo_db.options.list_opts(),
        oslo_messaging.opts.list_opts(),
        oslo_reports.opts.list_opts(),
    ):
        found += _plain(options)
    return found


def of_log() -> OptionList:
    """Return the options that are read only from evscrub's own files."""
    return [(DEFAULT_GROUP, bootstrap_opts), *_of_library("oslo.log")]


def known(enabled_backends: Mapping[str, str], config_sources: Iterable[str]) -> KnownOptions:
    """Return every option that evscrub's files may set.

    Takes a second or two unless glance_store's drivers are imported already.

    :param enabled_backends: types of a multi-store Glance's stores by name.
    :param config_sources: groups that ``config_source`` names.
    """
    stores, open_stores = of_stores(enabled_backends)
    open_groups = {*_OPEN_GROUPS, *open_stores, *config_sources}
    prefixes: tuple[str, ...] = ()
    if not any(name.startswith("cinder_") for _, opts in stores for name in _dests(opts)):
        prefixes = ("cinder_", *_CINDER_OTHERS)
    return KnownOptions(
        [*known_without_stores_list(), *stores], open_groups | _CINDER_GROUPS, prefixes
    )


def known_without_stores(config_sources: Iterable[str] = ()) -> KnownOptions:
    """Return the options that evscrub's files may set whichever stores are enabled; quick.

    :param config_sources: groups that ``config_source`` names.
    """
    return KnownOptions(known_without_stores_list(), {*_OPEN_GROUPS, *config_sources})


def store_groups(enabled_backends: Iterable[str]) -> set[str]:
    """Return the groups that contain options of stores."""
    names = map(normal_group, enabled_backends)
    return {_STORE_GROUP, _SHARED_STORE_GROUP, *_CINDER_GROUPS, *names}


def known_without_stores_list() -> OptionList:
    """Return the options of :func:`known_without_stores`, evscrub's first."""
    source = cfg.ListOpt(CONFIG_SOURCE)
    return [
        *of_evscrub(),
        *of_log(),
        *of_services(),
        *_of_library("oslo.concurrency"),
        (DEFAULT_GROUP, [source]),
    ]


def of_stores(enabled_backends: Mapping[str, str]) -> tuple[OptionList, set[str]]:
    """Return the options of the stores, and the names of the stores whose driver does not load.

    :param enabled_backends: types of a multi-store Glance's stores by name.
    """
    import glance_store  # noqa: PLC0415 - imports the clients of all stores
    from glance_store.driver import Store  # noqa: PLC0415 - the same

    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.DictOpt("enabled_backends", default=dict(enabled_backends)))
    with _silenced("stevedore", "glance_store"):  # they log every client library that is missing
        single = _of_library("glance.store")
        several = [pair for pair in _of_library("glance.multi_store") if pair[0] == _STORE_GROUP]
        # Only glance_store knows which options a store of a type has.
        glance_store.register_store_opts(conf)
    by_name = {opt.dest: opt for _, opts in single for opt in opts}
    found = [*single, *several, (_SHARED_STORE_GROUP, list(by_name.values()))]
    not_loaded = set()
    for store in enabled_backends:
        if store not in conf:
            not_loaded.add(store)
            continue
        opts = [by_name[name] for name in conf[store] if name in by_name]
        found.append((store, [*opts, *(Store.MULTI_BACKEND_OPTIONS or ())]))
    return found, not_loaded


@functools.cache
def _of_library(namespace: str) -> OptionList:
    """Return the options that a library publishes for oslo-config-generator."""
    points = _published().select(name=namespace)
    return [pair for point in points for pair in _plain(point.load()())]


@functools.cache  # a search of all installed packages takes 20 ms
def _published() -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group="oslo.config.opts")


@contextmanager
def _silenced(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _plain(options: Iterable[tuple[Any, Iterable[cfg.Opt]]]) -> OptionList:
    """Return options with the names of their groups; the group None is ``DEFAULT``."""
    return [
        (str(getattr(group, "name", group) or DEFAULT_GROUP), list(opts)) for group, opts in options
    ]


def _dests(opts: Iterable[cfg.Opt]) -> Iterator[str]:
    return (opt.dest for opt in opts)
