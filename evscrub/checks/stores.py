# SPDX-License-Identifier: Apache-2.0
"""Checks of the stores."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg

from evscrub.checks import registry
from evscrub.checks.report import Findings
from evscrub.checks.subject import Subject
from evscrub.domain.decisions import ACTIVE, DELETED, PENDING_DELETE, LocationRow
from evscrub.domain.proof import Presence
from evscrub.domain.verdict import FOREIGN_OBJECT, StoreNotUsableError
from evscrub.domain.words import count
from evscrub.registry.paging import keyset_pages
from evscrub.registry.rows import LOCATION_COLUMNS, unchecked_location_row
from evscrub.registry.tables import image_locations, images
from evscrub.stores.backends import Stores
from evscrub.stores.faults import schemes

_SAMPLE_ROWS = 200
_PAGE_ROWS = 5000
#: How many places outside the stores are listed, those with most locations first.
_SHOWN_PLACES = 5
#: Active images looked for in each part of a store, so that a single lost one proves nothing.
_WITNESSES = 3
_NEWEST_FIRST = image_locations.c.id.desc()
_OLDEST_FIRST = image_locations.c.id.asc()


def stores(subject: Subject) -> Findings:
    """Check that every enabled store loads and can delete."""
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
            f"evscrub deletes nothing from {' and '.join(loaded.names)}: its data is not Glance's."
        )
    _check_default(found, conf, loaded)
    if loaded.usable:
        found.note(f"Loaded: {', '.join(loaded.usable)}.")
    return found


def _check_default(found: Findings, conf: cfg.ConfigOpts, loaded: Stores) -> None:
    """Check that Glance itself would start with its default store."""
    if conf.enabled_backends:
        option, default, known = "default_backend", conf.glance_store.default_backend, loaded.names
    else:
        option, default = "default_store", conf.glance_store.default_store
        known = sorted(scheme for name in loaded.names for scheme in schemes(name))
    if default not in known:
        found.warn(
            f"[glance_store] {option} is {default or 'not set'}, and Glance does not start with"
            f" that: set it in glance-api.conf to one of {', '.join(known)}, and check that Glance"
            " reads the same file."
        )


def locations(subject: Subject) -> Findings:
    """Check that the newest locations can be read and belong to stores configured here."""
    found = Findings()
    reasons: Counter[str] = Counter()
    rows = _sample(subject, _NEWEST_FIRST, image_locations.c.status != DELETED)
    for row, _ in rows:
        try:
            subject.stores.resolve(row)
        except StoreNotUsableError as error:
            # The checks of stores and of foreign locations report the others.
            if not error.store and error.reason != FOREIGN_OBJECT:
                reasons[error.hint] += 1
    for hint, number in reasons.most_common():
        end = "" if hint.endswith("?") else "."
        found.fail(f"{number} of the {len(rows)} newest locations cannot be scrubbed: {hint}{end}")
    if not found.code:
        found.note(f"{count(len(rows), 'location')} checked." if rows else "No location yet.")
    return found


def witnesses(subject: Subject) -> Findings:
    """Check that each store has some of its newest and oldest active images, by their sizes."""
    found = Findings()
    asked, old = _look_for(subject, _NEWEST_FIRST), _look_for(subject, _OLDEST_FIRST)
    stores = sorted({store for store, _ in asked})
    for store in stores:
        parts = [presences for (name, _), presences in asked.items() if name == store]
        absent = sum(set(presences) == {Presence.ABSENT} for presences in parts)
        if absent:
            of_parts = "" if len(parts) == 1 else f" in {absent} of its {len(parts)} places"
            found.fail(
                f"The store {store} has none of the active images looked for{of_parts}: check that"
                " its file system is mounted here, or that its bucket, container or pool is the"
                " right one. Deleted images would be missing too, and an agent pauses the store."
            )
        elif not any(Presence.THERE in presences for presences in parts):
            found.warn(
                f"The store {store} does not say whether it has an active image, so data that it"
                " lacks cannot be proven to be deleted, and its images wait."
            )
        without_old = [
            part
            for part, presences in asked.items()
            if part[0] == store
            and Presence.THERE in presences
            and set(old.get(part, ())) == {Presence.ABSENT}
        ]
        if without_old:
            found.warn(
                f"The store {store} has its newest active images and none of the oldest ones looked"
                " for: delete them in Glance if they are lost, or mount its file system, which"
                " later uploads may hide. Until then old deleted images that it lacks are counted,"
                " see [scrubber] not_found_limit."
            )
    if without := [name for name in subject.stores.deletable if name not in stores]:
        found.note(
            f"No active image can prove that {' and '.join(without)} is the right store: images"
            " whose data it lacks are counted, see [scrubber] not_found_limit."
        )
    if stores and not found.code:
        found.note(f"Active images are there: {', '.join(stores)}.")
    return found


def _look_for(
    subject: Subject, order: sa.UnaryExpression[int]
) -> dict[tuple[str, str], list[Presence]]:
    """Look for the first few active images of each part of a store, until one is there.

    :returns: the answers, by store and part of it.
    """
    active = (image_locations.c.status == ACTIVE, images.c.status == ACTIVE, images.c.size > 0)
    asked: dict[tuple[str, str], list[Presence]] = {}
    for row, size_bytes in _sample(subject, order, *active):
        try:
            target = subject.stores.resolve(row)
        except StoreNotUsableError:
            continue  # the other checks report it
        part = asked.setdefault((target.store, target.endpoint), [])
        if len(part) < _WITNESSES and Presence.THERE not in part:
            part.append(subject.stores.look_for(target, size_bytes))
    return asked


def foreign(subject: Subject) -> Findings:
    """Check for locations outside the places where the configured stores keep their data."""
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
            found.warn(f"The same holds for {what} locations in {count(further, 'more place')}.")
    if not found.code:
        found.note(f"{count(looked_at, 'location')} checked, none outside its store.")
    return found


def _sample(
    subject: Subject, order: sa.UnaryExpression[int], *where: sa.ColumnElement[bool]
) -> list[tuple[LocationRow, int]]:
    """Return the first locations that match, with the sizes of their images."""
    query = (
        sa.select(*LOCATION_COLUMNS, images.c.size)
        .join(images, images.c.id == image_locations.c.image_id, isouter=True)
        .where(*where)
        .order_by(order)
        .limit(_SAMPLE_ROWS)
    )
    rows = registry.read(subject, lambda session: session.execute(query).all())
    return [(unchecked_location_row(row), row.size) for row in rows]


def _rows(subject: Subject) -> Iterator[LocationRow]:
    """Yield all locations that are not deleted, read page by page."""
    query = (
        sa.select(*LOCATION_COLUMNS)
        .where(image_locations.c.status != DELETED)
        .order_by(image_locations.c.id)
        .limit(_PAGE_ROWS)
    )

    def read(last: int) -> Sequence[Any]:
        page = query.where(image_locations.c.id > last)
        return registry.read(subject, lambda session: session.execute(page).all())

    for page in keyset_pages(read, lambda row: int(row.id), 0, _PAGE_ROWS):
        yield from map(unchecked_location_row, page)
