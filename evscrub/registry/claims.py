# SPDX-License-Identifier: Apache-2.0
"""Look at images, claim them, renew the claims and settle them, each in one short transaction.

A claim sets the image to ``deleted`` and stamps ``updated_at`` of its pending locations: the lease.
From then on Glance, its scrubber and other agents leave the image alone, whatever happens to this
process. Leases are whole seconds of the database's clock, because MySQL's DATETIME keeps no more.
"""

import functools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from evscrub.registry.database import Database, read_now, retried
from evscrub.registry.tables import image_locations, images
from evscrub.rules import (
    DELETED,
    PENDING_DELETE,
    UNKNOWN,
    Decision,
    ImageRow,
    Kind,
    Leave,
    LocationRow,
    Policy,
    Scrub,
    decide,
)

IMAGE_COLUMNS = (
    images.c.id,
    images.c.owner,
    images.c.size,
    images.c.status,
    images.c.deleted,
    images.c.deleted_at,
)
LOCATION_COLUMNS = (
    image_locations.c.image_id,
    image_locations.c.id,
    image_locations.c.value,
    image_locations.c.meta_data,
    image_locations.c.status,
    image_locations.c.deleted,
    image_locations.c.deleted_at,
    image_locations.c.updated_at,
)


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of an image; `image` is None when the registry does not know it."""

    image: ImageRow | None
    decision: Decision


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to delete these locations until `lease` has aged by the claim timeout."""

    image: ImageRow
    kind: Kind
    locations: tuple[LocationRow, ...]
    lease: datetime


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer of the registry for many images, at the database's time `now`."""

    now: datetime
    sights: Mapping[str, Sight]
    claims: Sequence[Claim] = ()


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a claim.

    :param lease: the lease as last renewed.
    :param gone: ids of locations whose data is gone.
    :param left: ids of locations whose data is still there; any at all release the image.
    """

    image_id: str
    kind: Kind
    lease: datetime
    gone: Sequence[int]
    left: Sequence[int]


class Claims:
    """The claim protocol on a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @retried
    def look(self, image_ids: Collection[str], policy: Policy) -> Seen:
        """Read images and decide about each, changing nothing."""
        with self.database.reading() as connection:
            now = read_now(connection)
            rows = read_images(connection, image_ids)
        return Seen(now, _decide_all(image_ids, rows, now, policy))

    @retried
    def claim(self, image_ids: Collection[str], policy: Policy) -> Seen:
        """Claim those of the images that may be scrubbed now and that nobody else has locked.

        An image that another transaction has locked is missing from the answer's sights.
        """
        with self.database.transaction() as connection:
            rows = read_images(connection, image_ids, lock=True)
            now = read_now(connection)
            sights = _decide_all(rows, rows, now, policy)
            lease = _new_lease(sights.values(), now)
            claims = [
                Claim(sight.image, sight.decision.kind, sight.decision.locations, lease)
                for sight in sights.values()
                if sight.image is not None and isinstance(sight.decision, Scrub)
            ]
            _stamp(connection, claims, lease)
        return Seen(now, sights, claims)

    @retried
    def renew(self, held: Iterable[tuple[Claim, datetime]]) -> tuple[list[Claim], datetime]:
        """Renew leases; for claims whose store calls take long.

        :param held: claims and the leases they have now.
        :returns: the claims that are still ours, and their new lease.
        """
        kept = []
        held = list(held)
        with self.database.transaction() as connection:
            # Never older than it was: see _new_lease.
            leases = [read_now(connection), *(old_lease for _, old_lease in held)]
            lease = max(leases).replace(microsecond=0)
            for claim, old_lease in held:
                # An image a statement: only its row count tells ours from a lease that another
                # agent stamped in the same second.
                ids = [location.id for location in claim.locations]
                renewed = connection.execute(
                    sa.update(image_locations)
                    .where(
                        image_locations.c.id.in_(ids),
                        image_locations.c.status == PENDING_DELETE,
                        image_locations.c.updated_at == old_lease,
                    )
                    .values(updated_at=lease)
                )
                if renewed.rowcount == len(ids):
                    kept.append(claim)
            deleted = [claim.image.id for claim in kept if claim.kind is not Kind.ORPHAN]
            if deleted:
                # Should this agent die, a sweep of what changed lately is to see it.
                connection.execute(
                    sa.update(images)
                    .where(images.c.id.in_(deleted), images.c.status == DELETED)
                    .values(updated_at=lease)
                )
        return kept, lease

    @retried
    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Finish what is gone and release what is left, as far as the claims are still ours."""
        gone = [location for settlement in settlements for location in settlement.gone]
        released = [settlement for settlement in settlements if settlement.left]
        with self.database.transaction() as connection:
            now = read_now(connection)
            returning = _lock_released(connection, released)
            if gone:
                # Whoever holds the claim by now: the data is gone, and so the row should say.
                connection.execute(
                    sa.update(image_locations)
                    .where(
                        image_locations.c.id.in_(gone),
                        image_locations.c.status == PENDING_DELETE,
                    )
                    .values(status=DELETED, deleted_at=now, updated_at=now)
                )
            if returning:
                connection.execute(
                    sa.update(images)
                    .where(images.c.id.in_(returning), images.c.status == DELETED)
                    .values(status=PENDING_DELETE, updated_at=now)
                )
            for settlement in released:
                if settlement.kind is Kind.ORPHAN:
                    # Glance set both times to the same value when it removed the location.
                    connection.execute(
                        sa.update(image_locations)
                        .where(
                            image_locations.c.id.in_(settlement.left),
                            image_locations.c.status == PENDING_DELETE,
                            image_locations.c.updated_at == settlement.lease,
                        )
                        .values(updated_at=image_locations.c.deleted_at)
                    )


Rows = dict[str, tuple[ImageRow, list[LocationRow]]]


def read_images(
    connection: sa.Connection,
    image_ids: Collection[str],
    *,
    lock: bool = False,
    skip_locked: bool = True,
) -> Rows:
    """Read images and all their locations.

    :param lock: lock them until the transaction ends, images first.
    :param skip_locked: leave out images that another transaction has locked, or wait for it.
    """
    of_images = sa.select(*IMAGE_COLUMNS).where(images.c.id.in_(image_ids))
    of_locations = sa.select(*LOCATION_COLUMNS).order_by(image_locations.c.id)
    if lock:
        of_images = of_images.with_for_update(skip_locked=skip_locked)
        # So that a renewal by an agent that was away cannot come between look and stamp.
        of_locations = of_locations.with_for_update()
    wanted = set(image_ids)  # some databases compare without case, and find others too
    found: Rows = {
        row.id: (ImageRow._make(row), [])
        for row in connection.execute(of_images).all()
        if row.id in wanted
    }
    if found:
        where = image_locations.c.image_id.in_(list(found))
        for image_id, number, value, metadata, *rest in connection.execute(
            of_locations.where(where)
        ).all():
            location = LocationRow(number, value, named_store(metadata), *rest)
            found[image_id][1].append(location)
    return found


@functools.lru_cache(maxsize=1024)
def named_store(metadata: str | None) -> str | None:
    """The store that a location's metadata names; rows of old releases call it ``backend``."""
    try:
        values = json.loads(metadata or "{}")
    except ValueError:
        return None
    if not isinstance(values, dict):
        return None
    store = values.get("store") or values.get("backend")
    return store if isinstance(store, str) else None


def _decide_all(
    image_ids: Iterable[str], rows: Rows, now: datetime, policy: Policy
) -> dict[str, Sight]:
    sights = {}
    for image_id in image_ids:
        if image_id in rows:
            image, locations = rows[image_id]
            sights[image_id] = Sight(image, decide(image, locations, now, policy))
        else:
            sights[image_id] = Sight(None, Leave(UNKNOWN))
    return sights


def _new_lease(sights: Iterable[Sight], now: datetime) -> datetime:
    """A lease that none of the locations has had.

    One released and claimed again in the same second would have the same twice, and its first
    owner, repeating a release whose answer was lost, would release the second one's claim.
    """
    stamps = [
        location.updated_at + timedelta(seconds=1)
        for sight in sights
        if isinstance(sight.decision, Scrub)
        for location in sight.decision.locations
        if location.updated_at is not None
    ]
    return max([now, *stamps]).replace(microsecond=0)


def _stamp(connection: sa.Connection, claims: Sequence[Claim], lease: datetime) -> None:
    """Write claims on rows that this transaction has locked."""
    deleted = [claim.image.id for claim in claims if claim.kind is not Kind.ORPHAN]
    locations = [location.id for claim in claims for location in claim.locations]
    if deleted:
        connection.execute(
            sa.update(images)
            .where(images.c.id.in_(deleted), images.c.status.in_((PENDING_DELETE, DELETED)))
            .values(status=DELETED, updated_at=lease)
        )
    if locations:
        connection.execute(
            sa.update(image_locations)
            .where(image_locations.c.id.in_(locations))
            .values(updated_at=lease)
        )


def _lock_released(connection: sa.Connection, released: Sequence[Settlement]) -> list[str]:
    """Lock the images that go back to pending; returns those whose lease is still ours."""
    leases = {
        location: settlement.lease
        for settlement in released
        if settlement.kind is not Kind.ORPHAN
        for location in settlement.left
    }
    if not leases:
        return []
    ids = [settlement.image_id for settlement in released]
    connection.execute(
        sa.select(images.c.id).where(images.c.id.in_(ids)).order_by(images.c.id).with_for_update()
    ).all()
    rows = connection.execute(
        sa.select(
            image_locations.c.image_id, image_locations.c.id, image_locations.c.updated_at
        ).where(image_locations.c.id.in_(list(leases)), image_locations.c.status == PENDING_DELETE)
    )
    return sorted({row.image_id for row in rows if row.updated_at == leases[row.id]})
