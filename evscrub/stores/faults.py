# SPDX-License-Identifier: Apache-2.0
"""Explain why a store cannot be used, and what to set, install or mount.

A driver may raise its client library's exception, hide that the client library is missing, or load
successfully with options with which every delete fails.
"""

import difflib
import functools
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeAlias

from glance_store.exceptions import BadStoreConfiguration
from oslo_config import cfg
from stevedore.exception import NoMatches

from evscrub.domain import verdict
from evscrub.stores import configs
from evscrub.telemetry.redact import redact

#: Namespace of the entry points of glance_store's drivers, which are named by type of store.
NAMESPACE = "glance_store.drivers"
#: Prefix of store names that Glance reserves; it does not start if one of them is enabled.
_RESERVED = "os_glance_"
_LONGEST_TEXT = 300
_SHORTEST_SECRET = 4
#: A driver of glance_store, which ships no types.
Driver: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a store cannot be used.

    :param reason: one of the reasons in :mod:`evscrub.domain.verdict`.
    :param hint: what is wrong and what to do, as a clause without credentials.
    """

    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """Properties of a driver that are known without loading it.

    :param schemes: schemes of its URLs.
    :param modules: Python modules that it needs.
    :param install: package that has these modules.
    """

    schemes: tuple[str, ...]
    modules: tuple[str, ...] = ()
    install: str = ""


_FILE = "glance_store._drivers.filesystem"
_CINDER = "glance_store._drivers.cinder"
#: By the driver's module. Schemes are from its ``get_schemes``; modules are those that it imports
#: within ``try`` or whose absence fails its import.
_KINDS = {
    _FILE: _Kind(("file", "filesystem")),
    "glance_store._drivers.http": _Kind(("http", "https")),
    "glance_store._drivers.swift": _Kind(
        ("swift", "swift+http", "swift+https", "swift+config"), ("swiftclient",), "evscrub[swift]"
    ),
    "glance_store._drivers.s3": _Kind(
        ("s3", "s3+http", "s3+https"), ("boto3", "botocore"), "evscrub[s3]"
    ),
    "glance_store._drivers.rbd": _Kind(
        ("rbd",), ("rados", "rbd"), "Ceph's packages python3-rados and python3-rbd"
    ),
    _CINDER: _Kind(("cinder",), ("cinderclient", "os_brick", "oslo_privsep"), "evscrub[cinder]"),
    "glance_store._drivers.vmware_datastore": _Kind(
        ("vsphere",), ("oslo_vmware",), "evscrub[vmware]"
    ),
}


@functools.cache  # a search of the entry points takes tens of milliseconds
def driver_module(kind: str) -> str | None:
    """Return the module of the driver for a type of store, or None if there is no such type."""
    return next((point.module for point in entry_points(group=NAMESPACE, name=kind)), None)


def schemes(kind: str) -> tuple[str, ...]:
    """Return the URL schemes of a type of store; for an unknown type, its name."""
    known = _KINDS.get(driver_module(kind) or "")
    return known.schemes if known else (kind,)


def is_read_only(kind: str) -> bool:
    """Return whether a type of store never deletes, because its data is not Glance's."""
    return "http" in schemes(kind)


def missing_modules(kind: str) -> list[str]:
    """Return the Python modules that a type of store needs but that are not installed."""
    known = _KINDS.get(driver_module(kind) or "")
    return [name for name in known.modules if not _is_installed(name)] if known else []


def directories(driver: Driver) -> tuple[str, ...]:
    """Return the directories of a file store's driver; none for any other driver.

    They are read from the driver's own options, which fall back to ``[backend_defaults]``.
    """
    if not any(base.__module__ == _FILE for base in type(driver).__mro__):
        return ()
    return configs.datadirs(functools.partial(getattr, _options(driver)))


def reserved(name: str) -> Fault | None:
    """Return a fault if Glance reserves the name of a store."""
    if not name.startswith(_RESERVED):
        return None
    return Fault(
        verdict.STORE_NOT_LOADED,
        f"Glance reserves names that begin with {_RESERVED} and does not start with such a store:"
        " rename it in [DEFAULT] enabled_backends of glance-api.conf",
    )


def bad_directory(driver: Driver, where: str, *, may_be_missing: bool) -> Fault | None:
    """Return a fault if a directory of a file store is missing or not writable.

    Must be called before the driver is configured, because that creates missing directories.

    :param where: the group of the store's options, and the file, for the hint.
    :param may_be_missing: whether a missing directory is no fault.
    """
    for path in directories(driver):
        if Path(path).is_dir():
            if not os.access(path, os.W_OK | os.X_OK):
                return Fault(
                    verdict.STORE_CANNOT_DELETE,
                    f"its directory {path} is not writable on this host: run evscrub as the user"
                    " that Glance runs as, and mount the file system for writing",
                )
        elif not may_be_missing:
            return Fault(
                verdict.STORE_NOT_LOADED,
                f"its directory {path} does not exist on this host: mount its file system, or"
                f" correct filesystem_store_datadir in {where}",
            )
    return None


def cannot_delete(driver: Driver, where: str) -> Fault | None:
    """Return a fault if every delete would fail with the driver's options.

    The driver need not be configured yet; with some of these options it cannot be.

    :param where: the group of the store's options, and the file, for the hint.
    """
    hint = ""
    kind = type(driver).__module__
    if type(driver).__name__ == "MultiTenantStore":
        hint = (
            "with swift_store_multi_tenant only the user's own token can delete, and evscrub has"
            " none: set swift_store_multi_tenant = False and an account's swift_store_user and"
            f" swift_store_key in {where}, or turn [DEFAULT] delayed_delete off so that Glance"
            " deletes the data during the user's request"
        )
    elif kind.startswith(_CINDER) and not _has_service_user(driver):
        hint = (
            "the cinder driver cannot delete without a service user: set cinder_store_user_name,"
            " cinder_store_password, cinder_store_project_name and cinder_store_auth_address in"
            f" {where}"
        )
    return Fault(verdict.STORE_CANNOT_DELETE, hint) if hint else None


def bad_client(driver: Driver, where: str) -> Fault | None:
    """Return a fault if a configured S3 driver cannot create a client, as each delete does.

    :param where: the group of the store's options, and the file, for the hint.
    """
    make = getattr(driver, "_create_s3_client", None)
    # Without parameters the client is created from options alone, without a request.
    if make is None or inspect.signature(make).parameters:
        return None
    try:
        make()
    except Exception as error:  # noqa: BLE001 - boto3 raises ValueError, botocore its own
        return Fault(
            verdict.STORE_CANNOT_DELETE,
            f"its options do not allow an S3 client ({_said(error, driver)}): correct"
            " s3_store_host, including http:// or https://, and s3_store_bucket in"
            f" {where}",
        )
    return None


def explain(error: Exception, kind: str, where: str, driver: Driver = None) -> Fault:
    """Return the fault for an exception that was raised while a driver was loaded.

    :param kind: type of the store.
    :param where: the group of the store's options, and the file, for the hint.
    :param driver: the driver, if it was created.
    """
    missing = missing_modules(kind)
    if isinstance(error, ModuleNotFoundError) and error.name and error.name not in missing:
        missing.insert(0, error.name.partition(".")[0])
    if isinstance(error, NoMatches):
        hint = _no_such_kind(kind)
    elif missing:
        known = _KINDS.get(driver_module(kind) or "")
        names = " and ".join([*filter(None, [", ".join(missing[:-1])]), missing[-1]])
        modules = f"the Python module{'s' if len(missing) > 1 else ''} {names}"
        install = f": install {known.install}" if known and known.install else ""
        hint = f"its driver needs {modules}, not installed here{install}"
    else:
        hint = f"its driver does not load ({_said(error, driver)}): check {where}, and its backend"
    return Fault(verdict.STORE_NOT_LOADED, hint)


def _no_such_kind(kind: str) -> str:
    kinds = [point.name for point in entry_points(group=NAMESPACE)]
    known = sorted(name for name in kinds if "." not in name and name != "no_conf")
    near = difflib.get_close_matches(kind, known, n=1)
    meant = f"did you mean {near[0]}" if near else f"there are {', '.join(known)}"
    return f"glance_store has no type of store {kind!r} ({meant}): correct glance-api.conf"


def _options(driver: Driver) -> cfg.ConfigOpts.GroupAttr:
    """Return the group of options that a driver reads."""
    own: cfg.ConfigOpts.GroupAttr | None = getattr(driver, "store_conf", None)
    if own is None:
        own = driver.conf[driver.backend_group or "glance_store"]
    return own


def _has_service_user(driver: Driver) -> bool:
    """Return whether a service user is configured, by the rule of the cinder driver."""
    options = _options(driver)

    def has(names: Iterable[str]) -> bool:
        return all(getattr(options, f"cinder_store_{name}", None) for name in names)

    return has(("user_name", "password", "project_name", "auth_address")) or has(
        ("application_credential_id", "application_credential_secret", "auth_address")
    )


def _is_installed(module: str) -> bool:
    if sys.modules.get(module) is not None:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _said(error: Exception, driver: Driver) -> str:
    """Return the message of an exception, or of its cause if it has none, in one line."""
    cause = error.__cause__ or error.__context__
    if not str(error) and isinstance(cause, Exception):
        return _said(cause, driver)
    text = " ".join(str(error).split())
    if isinstance(error, BadStoreConfiguration):
        text = text.rpartition("Reason: ")[2]
    else:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    for secret in _secrets(driver):
        text = text.replace(secret, "***")
    return redact(text)[:_LONGEST_TEXT].rstrip(".")


def _secrets(driver: Driver) -> Iterator[str]:
    """Yield the values of a driver's secret options, except very short ones."""
    for option in getattr(driver, "OPTIONS", None) or ():
        if option.secret:
            with suppress(cfg.Error):
                value = str(getattr(_options(driver), option.dest) or "")
                if len(value) >= _SHORTEST_SECRET:
                    yield value
