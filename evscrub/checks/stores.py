# SPDX-License-Identifier: Apache-2.0
"""Checks of the stores."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import glance_store
import sqlalchemy as sa
from glance_store import location as store_location
from glance_store.capabilities import BitMasks
from oslo_config import cfg

from evscrub.checks.report import Findings, NotCheckedError, count
from evscrub.checks.subject import Subject
from evscrub.location_urls import file_path
from evscrub.registry.claims import LOCATION_COLUMNS, named_store
from evscrub.registry.database import UNAVAILABLE
from evscrub.registry.tables import image_locations
from evscrub.rules import DELETED, PENDING_DELETE, LocationRow
from evscrub.stores import Stores, Target
from evscrub.verdict import FOREIGN_OBJECT, StoreNotUsableError

#: Stores that never delete: their data is not Glance's.
_READ_ONLY = frozenset({"http", "https"})
_SAMPLE_ROWS = 200
_PAGE_ROWS = 5000
#: Places outside of the stores that are told, the fullest first.
_SHOWN_PLACES = 5
#: Files that must be missing before a store is suspected, so that one lost image says nothing.
_SAMPLE_FILES = 3


def stores(subject: Subject) -> Findings:
    """Whether every enabled store loads and may delete."""
    found = Findings()
    conf = subject.conf
    several = dict(conf.enabled_backends or {})
    if several:
        glance_store.register_store_opts(conf)
    else:
        glance_store.register_opts(conf)
    _check_directories(found, conf, several)
    if found.code:
        found.fail("No store was loaded, for loading one makes its directory.")
        return found
    try:
        options = conf.scrubber
        loaded = Stores(conf, options.allowed_places, options.separate_stores)
    except ValueError:
        found.fail(
            "No store can be loaded: check [glance_store] stores, or [DEFAULT] enabled_backends, in"
            " glance-api.conf, and that the stores' clients are installed here."
        )
        return found
    except Exception as error:  # noqa: BLE001 - drivers raise what their clients do
        found.fail(
            f"Loading the stores ended in {type(error).__name__}; 'evscrub check --debug' logs what"
            " glance_store does. Check the stores' options in glance-api.conf."
        )
        return found
    subject.load(loaded)
    enabled = several or {name: name for name in conf.glance_store.stores}
    for name, kind in sorted(enabled.items()):
        driver = _driver(name, single=not several)
        where = f"[{name if several else 'glance_store'}] in glance-api.conf"
        if driver is None:
            found.fail(
                f"The store {name} ({kind}) did not load: check {where}, and install its client"
                " here, as Glance's host has it."
            )
        elif kind not in _READ_ONLY and not driver.is_capable(BitMasks.WRITE_ACCESS):
            found.fail(
                f"The store {name} ({kind}) loaded without write access, so it deletes nothing:"
                f" check {where}, and that this host and user may use the backend as Glance does."
            )
    found.note(f"Loaded: {', '.join(loaded.names)}.")
    return found


def locations(subject: Subject) -> Findings:
    """Whether the newest locations can be read, lie in stores known here, and are there."""
    found = Findings()
    loaded = subject.stores
    reasons: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    there: Counter[str] = Counter()
    rows = _sample(subject)
    for row in rows:
        try:
            target = loaded.resolve(row)
        except StoreNotUsableError as error:
            if error.reason != FOREIGN_OBJECT:  # those are counted by themselves
                reasons[error.hint] += 1
            continue
        path = _path(target)
        if path is not None:
            (there if path.exists() else missing)[target.store] += 1
    for hint, number in reasons.most_common():
        end = "" if hint.endswith("?") else "."
        found.fail(f"{number} of the {len(rows)} newest locations cannot be scrubbed: {hint}{end}")
    for store, number in missing.items():
        if not there[store] and number >= _SAMPLE_FILES:
            found.fail(
                f"None of the {count(number, 'file')} looked for in the store {store} is there: is"
                " its file system mounted here? Every delete would find nothing, and the data would"
                " be lost from sight."
            )
    if not found.code:
        found.note(f"{count(len(rows), 'location')} looked at." if rows else "No location yet.")
    return found


def foreign(subject: Subject) -> Findings:
    """Whether locations lie where no store of this configuration keeps its data."""
    found = Findings()
    pending: Counter[str] = Counter()
    live: Counter[str] = Counter()
    looked_at = 0
    for row in _rows(subject):
        looked_at += 1
        try:
            subject.stores.resolve(row)
        except StoreNotUsableError as error:
            if error.reason == FOREIGN_OBJECT:
                (pending if row.status == PENDING_DELETE else live)[error.hint] += 1
    for counted, what in ((pending, "pending"), (live, "live")):
        for hint, number in counted.most_common(_SHOWN_PLACES):
            found.warn(f"{count(number, f'{what} location')} cannot be scrubbed: {hint}.")
        further = len(counted) - _SHOWN_PLACES
        if further > 0:
            found.warn(f"So it is with {what} locations in {count(further, 'further place')}.")
    if not found.code:
        found.note(f"{count(looked_at, 'location')} looked at, none outside of its store.")
    return found


def _check_directories(found: Findings, conf: cfg.ConfigOpts, several: dict[str, str]) -> None:
    groups = {name: name for name, kind in several.items() if kind == "file"}
    if not several and "file" in conf.glance_store.stores:
        groups = {"glance_store": "file"}
    for group, name in groups.items():
        options = conf[group]
        # Each may end in a priority.
        directories = [entry.split(":")[0] for entry in options.filesystem_store_datadirs or ()]
        if not directories and options.filesystem_store_datadir:
            directories = [options.filesystem_store_datadir]
        for directory in directories:
            if not Path(directory).is_dir():
                found.fail(
                    f"The store {name} has no directory {directory} here: mount its file system, or"
                    f" correct [{group}] filesystem_store_datadir in glance-api.conf."
                )
            elif not os.access(directory, os.W_OK | os.X_OK):
                found.fail(
                    f"The directory {directory} of the store {name} cannot be written to here: let"
                    " evscrub run as the user that Glance runs as, on a file system mounted for"
                    " writing."
                )


def _driver(name: str, *, single: bool) -> "glance_store.driver.Store | None":
    if single:
        for info in store_location.SCHEME_TO_CLS_MAP.values():
            if info["store_entry"] == name:
                return info["store"]
        return None
    for by_name in store_location.SCHEME_TO_CLS_BACKEND_MAP.values():
        if name in by_name:
            return by_name[name]["store"]
    return None


def _sample(subject: Subject) -> list[LocationRow]:
    """The newest locations that should have data."""
    query = (
        sa.select(*LOCATION_COLUMNS)
        .where(image_locations.c.status != DELETED)
        .order_by(image_locations.c.id.desc())
        .limit(_SAMPLE_ROWS)
    )
    try:
        with subject.registry.reading() as session:
            return [
                LocationRow(row.id, row.value, named_store(row.meta_data), *row[4:])
                for row in session.execute(query)
            ]
    except UNAVAILABLE as error:
        raise NotCheckedError(f"the registry cannot be read ({type(error).__name__})") from None


def _rows(subject: Subject) -> Iterator[LocationRow]:
    """Yield all locations that have data, page by page."""
    query = (
        sa.select(*LOCATION_COLUMNS)
        .where(image_locations.c.status != DELETED)
        .order_by(image_locations.c.id)
        .limit(_PAGE_ROWS)
    )
    last = 0
    while True:
        try:
            with subject.registry.reading() as session:
                page = session.execute(query.where(image_locations.c.id > last)).all()
        except UNAVAILABLE as error:
            raise NotCheckedError(f"the registry cannot be read ({type(error).__name__})") from None
        for row in page:
            yield LocationRow(row.id, row.value, named_store(row.meta_data), *row[4:])
        if len(page) < _PAGE_ROWS:
            return
        last = page[-1].id


def _path(target: Target) -> Path | None:
    if target.scheme not in {"file", "filesystem"}:
        return None
    return Path(file_path(target.url))
