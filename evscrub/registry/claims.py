# SPDX-License-Identifier: Apache-2.0
"""Look at images, claim them, renew the claims and settle them, each in one short transaction.

A claim sets the image to ``deleted`` and stamps ``updated_at`` of its pending locations: the lease.
From then on Glance, its scrubber and other agents leave the image alone, whatever happens to this
process. Leases are whole seconds of the database's clock, because MySQL's DATETIME keeps no more.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from evscrub.domain.clock import DatabaseClock, naive
from evscrub.domain.decisions import (
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
from evscrub.registry.database import Database, read_now, retried
from evscrub.registry.rows import Rows, read_images
from evscrub.registry.tables import image_locations, images


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
    """An answer of the registry for many images, at the database's time `now`.

    :param refused: whether nothing was claimed because that time cannot be right.
    """

    now: datetime
    sights: Mapping[str, Sight]
    claims: Sequence[Claim] = ()
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a claim.

    :param lease: the lease as last renewed.
    :param gone: ids of locations whose data is gone.
    :param left: ids of locations that are still to be deleted; any at all release the image.
    :param whole: whether the data of those is known to be there, for it was claimed when pending
        and no delete of it may have had an effect.
    """

    image_id: str
    lease: datetime
    gone: Sequence[int]
    left: Sequence[int]
    whole: bool


class Claims:
    """The claim protocol on a database.

    :param clock: the estimate that the database's answers must agree with; None trusts them.
    """

    def __init__(self, database: Database, clock: DatabaseClock | None = None) -> None:
        self.database = database
        self._clock = clock

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

        An image that another transaction has locked is missing from the answer's sights. Nothing is
        claimed on a node whose clock disagrees with the estimate: images would go too early there,
        and leases look older than they are.
        """
        with self.database.transaction() as connection:
            rows = read_images(connection, image_ids, lock=True)
            asked = None if self._clock is None else self._clock.moment()
            now = read_now(connection)
            if self._clock is not None and asked is not None and not self._clock.agrees(now, asked):
                return Seen(now, {}, refused=True)
            sights = _decide_all(rows, rows, now, policy)
            lease = _new_lease(sights.values(), now, policy)
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
            # Never older than it was: see _new_lease; nor than other nodes take it for, where the
            # clock of this one is behind.
            leases = [read_now(connection), *(old_lease for _, old_lease in held)]
            if self._clock is not None:
                leases.append(naive(self._clock.now()))
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
            if kept:
                # If this agent dies, a sweep of recent changes finds the image. The image of an
                # orphan is not deleted and keeps its time.
                ids_kept = [claim.image.id for claim in kept]
                connection.execute(
                    sa.update(images)
                    .where(images.c.id.in_(ids_kept), images.c.status == DELETED)
                    .values(updated_at=lease)
                )
        return kept, lease

    @retried
    def settle(self, settlements: Sequence[Settlement], claim_timeout: timedelta) -> None:
        """Finish what is gone and release what is left, as far as the claims are still ours.

        Pending delete, from where it may be restored, becomes only what is whole. Of all else the
        lease is given back, as old as one that ran out, so that whoever is next takes it over.
        """
        gone = [location for settlement in settlements for location in settlement.gone]
        with self.database.transaction() as connection:
            now = read_now(connection)
            released = _lock_released(connection, [end for end in settlements if end.left])
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
            for whole, status in ((True, PENDING_DELETE), (False, DELETED)):
                returning = [end for end in released if end.whole == whole]
                if not returning:
                    continue
                # Those of locations that were taken off live images are not `deleted`.
                connection.execute(
                    sa.update(images)
                    .where(
                        images.c.id.in_([end.image_id for end in returning]),
                        images.c.status == DELETED,
                    )
                    .values(status=status, updated_at=now)
                )
                if not whole:
                    _give_back(connection, returning, claim_timeout)


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


def _new_lease(sights: Iterable[Sight], now: datetime, policy: Policy) -> datetime:
    """A lease that none of the locations has had.

    One released and claimed again in the same second would have the same twice, and its first
    owner, repeating a release whose answer was lost, would release the second one's claim.
    """
    # What was given back is so much older than its lease was.
    older = dict.fromkeys(Kind, policy.claim_timeout) | {Kind.PENDING: timedelta(0)}
    ahead = [
        location.updated_at - now + older[sight.decision.kind] + timedelta(seconds=1)
        for sight in sights
        if isinstance(sight.decision, Scrub)
        for location in sight.decision.locations
        if location.updated_at is not None
    ]
    # A time far ahead is no lease, but what a host with a wrong clock wrote: the next one, were it
    # later still, would not run out.
    ahead = [span for span in ahead if timedelta(0) < span <= 2 * policy.claim_timeout]
    return max([now, *(now + span for span in ahead)]).replace(microsecond=0)


def _stamp(connection: sa.Connection, claims: Sequence[Claim], lease: datetime) -> None:
    """Write claims on rows that this transaction has locked."""
    claimed = [claim.image.id for claim in claims]
    locations = [location.id for claim in claims for location in claim.locations]
    if claimed:
        # The status leaves out the images of orphans, which are live.
        connection.execute(
            sa.update(images)
            .where(images.c.id.in_(claimed), images.c.status.in_((PENDING_DELETE, DELETED)))
            .values(status=DELETED, updated_at=lease)
        )
    if locations:
        connection.execute(
            sa.update(image_locations)
            .where(image_locations.c.id.in_(locations))
            .values(updated_at=lease)
        )


def _give_back(
    connection: sa.Connection, ends: Sequence[Settlement], claim_timeout: timedelta
) -> None:
    """Make the leases of locked images as old as ones that ran out."""
    by_lease: dict[datetime, list[int]] = {}
    for end in ends:
        by_lease.setdefault(end.lease, []).extend(end.left)
    for lease, left in by_lease.items():
        connection.execute(
            sa.update(image_locations)
            .where(image_locations.c.id.in_(left), image_locations.c.status == PENDING_DELETE)
            .values(updated_at=lease - claim_timeout)
        )


def _lock_released(connection: sa.Connection, released: Sequence[Settlement]) -> list[Settlement]:
    """Lock the images that are let go of; returns those whose lease is still ours."""
    if not released:
        return []
    ids = [end.image_id for end in released]
    connection.execute(
        sa.select(images.c.id).where(images.c.id.in_(ids)).order_by(images.c.id).with_for_update()
    ).all()
    left = [location for end in released for location in end.left]
    leases = {
        row.id: row.updated_at
        for row in connection.execute(
            sa.select(image_locations.c.id, image_locations.c.updated_at).where(
                image_locations.c.id.in_(left), image_locations.c.status == PENDING_DELETE
            )
        )
    }
    return [end for end in released if any(leases.get(row) == end.lease for row in end.left)]
