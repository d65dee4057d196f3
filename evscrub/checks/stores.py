# SPDX-License-Identifier: Apache-2.0
"""Checks of the stores."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from oslo_config import cfg

from evscrub.checks.report import Findings, NotCheckedError
from evscrub.checks.subject import Subject
from evscrub.location_urls import file_path
from evscrub.registry.database import UNAVAILABLE, is_away
from evscrub.registry.rows import LOCATION_COLUMNS, named_store
from evscrub.registry.tables import image_locations
from evscrub.rules import DELETED, PENDING_DELETE, LocationRow
from evscrub.store_faults import schemes
from evscrub.stores import Stores, Target
from evscrub.verdict import FOREIGN_OBJECT, StoreNotUsableError
from evscrub.words import count

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
    try:
        options = conf.scrubber
        loaded = Stores(
            conf,
            allowed_places=options.allowed_places,
            separate_stores=options.separate_stores,
        )
    except ValueError as error:
        found.fail(f"{str(error)[0].upper()}{str(error)[1:]}.")
        return found
    subject.load(loaded)
    kinds = dict(conf.enabled_backends or {}) or {name: name for name in loaded.names}
    for name, fault in sorted(loaded.faults.items()):
        found.fail(f"The store {name} ({kinds[name]}) cannot be used: {fault.hint}.")
    if not loaded.deletable:
        found.warn(
            f"Nothing is deleted from {' and '.join(loaded.names)}: the data there is not Glance's."
        )
    _check_default(found, conf, loaded)
    if loaded.usable:
        found.note(f"Loaded: {', '.join(loaded.usable)}.")
    return found


def _check_default(found: Findings, conf: cfg.ConfigOpts, loaded: Stores) -> None:
    """See whether Glance itself would start with its default store."""
    if conf.enabled_backends:
        option, default, known = "default_backend", conf.glance_store.default_backend, loaded.names
    else:
        option, default = "default_store", conf.glance_store.default_store
        known = sorted(scheme for name in loaded.names for scheme in schemes(name))
    if default not in known:
        found.warn(
            f"[glance_store] {option} is {default or 'not set'}, and Glance does not start with"
            f" that: set it in glance-api.conf to one of {', '.join(known)}. Is this the file that"
            " Glance reads?"
        )


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
            # Others are told with the stores, and by the check of foreign locations.
            if not error.store and error.reason != FOREIGN_OBJECT:
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
        if is_away(error):
            raise
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
