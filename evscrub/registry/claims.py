# SPDX-License-Identifier: Apache-2.0
"""Read images, claim them, renew and settle the claims, each in one short transaction.

A claim sets the image to ``deleted`` and stamps ``updated_at`` of its pending locations: the lease.
From then on neither Glance, nor its scrubber, nor another agent touches the image until the lease
expires, even if this process dies. Leases are whole seconds of the database's clock, because
MySQL's DATETIME stores no fractions here.

No transaction here waits for a row that another one has locked: a client that is frozen, or whose
host is gone, keeps its locks until the database ends its connection, which may take hours.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    Wait,
    decide,
)
from evscrub.registry.database import Database, read_now, retried
from evscrub.registry.locks import lock_images, lock_leases
from evscrub.registry.rows import Lock, Rows, read_images
from evscrub.registry.tables import image_locations, image_properties, images

#: Properties that Glance sets while it imports (glance.async_.flows.api_image_import); of the
#: second, an empty value remains.
_IMPORTING = ("os_glance_import_task", "os_glance_importing_to_stores")
_IMPORT_LOOK_SECONDS = 600.0
#: If glance-api dies, they stay until the next import of the image. No import takes as long.
_IMPORT_LONGEST = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Sight:
    """What was read of an image, and the decision about it.

    :param image: None if the registry has no such image.
    """

    image: ImageRow | None
    decision: Decision


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to delete the locations until the lease is older than the claim timeout.

    :param lease: naive UTC, whole seconds, by the database's clock.
    """

    image: ImageRow
    kind: Kind
    locations: tuple[LocationRow, ...]
    lease: datetime


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer of the registry about many images.

    :param now: the database's time of the answer, naive UTC.
    :param sights: what was read, by image id.
    :param claims: the images that were claimed.
    :param refused: whether nothing was claimed because `now` disagrees with the estimate.
    """

    now: datetime
    sights: Mapping[str, Sight]
    claims: Sequence[Claim] = ()
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """The result of a claim.

    :param lease: the lease after its last renewal.
    :param gone: ids of locations that are done with: their data is deleted or missing, or stays
        because it is shared.
    :param left: ids of locations whose data is still to be deleted; if there are any, the claim is
        handed back.
    :param whole: whether no data of `left` can be missing: the image was claimed when pending, and
        no delete may have taken effect.
    """

    image_id: str
    lease: datetime
    gone: Sequence[int]
    left: Sequence[int]
    whole: bool


@dataclass(frozen=True, slots=True)
class Renewal:
    """The result of renewing claims; those in neither collection are not this agent's any more.

    :param lease: the new lease.
    :param kept: ids of the images that have it.
    :param locked: ids of images that keep the old one, because another transaction has locked their
        locations.
    """

    lease: datetime
    kept: Collection[str]
    locked: Collection[str]


class Claims:
    """The claim protocol on a database.

    :param clock: estimate of the database's time that readings must agree with; None accepts any
        reading.
    """

    def __init__(self, database: Database, clock: DatabaseClock | None = None) -> None:
        self.database = database
        self._clock = clock

    @retried
    def look(self, image_ids: Collection[str], policy: Policy) -> Seen:
        """Read images and decide about each; changes nothing."""
        with self.database.reading() as connection:
            now = read_now(connection)
            rows = read_images(connection, image_ids)
            sights = _decide_all(image_ids, rows, now, policy)
            sights |= _orphans_of_imports(connection, sights, now)
        return Seen(now, sights)

    @retried
    def claim(self, image_ids: Collection[str], policy: Policy) -> Seen:
        """Claim the images that may be scrubbed now and that no other transaction has locked.

        Images that another transaction has locked are missing from the answer's sights, or from its
        claims if only their locations are. Nothing is claimed on a node whose clock disagrees with
        the estimate: images would be deleted too early by that clock, and leases of other agents
        would look expired.
        """
        with self.database.transaction() as connection:
            rows = read_images(connection, image_ids, Lock.FREE_IMAGES)
            asked = None if self._clock is None else self._clock.moment()
            now = read_now(connection)
            if self._clock is not None and asked is not None and not self._clock.agrees(now, asked):
                return Seen(now, {}, refused=True)
            sights = _decide_all(rows, rows, now, policy)
            sights |= _orphans_of_imports(connection, sights, now)
            lease = _new_lease(sights.values(), now, policy)
            claims = [
                Claim(sight.image, sight.decision.kind, sight.decision.locations, lease)
                for sight in sights.values()
                if sight.image is not None and isinstance(sight.decision, Scrub)
            ]
            claims = _lock_unchanged(connection, claims)
            _stamp(connection, claims, lease)
        return Seen(now, sights, claims)

    @retried
    def renew(self, held: Collection[tuple[Claim, datetime]]) -> Renewal:
        """Renew leases of claims whose store calls take long.

        :param held: claims with their current leases.
        """
        with self.database.transaction() as connection:
            ids = [location.id for claim, _ in held for location in claim.locations]
            found, locked = lock_leases(connection, ids)
            # The new lease is no older than the old one (see _new_lease), nor than the estimate:
            # the clock of this node may be behind those of other nodes.
            leases = [read_now(connection), *(old_lease for _, old_lease in held)]
            if self._clock is not None:
                leases.append(naive(self._clock.now()))
            lease = max(leases).replace(microsecond=0)
            kept = [
                claim
                for claim, old_lease in held
                if all(found.get(location.id) == old_lease for location in claim.locations)
            ]
            _renew(connection, kept, lease)
        return Renewal(
            lease,
            kept=[claim.image.id for claim in kept],
            locked=[
                claim.image.id
                for claim, _ in held
                if not locked.isdisjoint(location.id for location in claim.locations)
            ],
        )

    @retried
    def settle(
        self, settlements: Sequence[Settlement], claim_timeout: timedelta
    ) -> Collection[str]:
        """Mark locations whose data is gone, and hand back the claims with locations left.

        A claim that another agent has taken over is not handed back. An image whose data cannot be
        missing becomes ``pending_delete`` again and may be restored. Any other stays ``deleted``
        with its leases backdated by the claim timeout, so that the next agent takes it over.

        :param claim_timeout: age at which a lease expires.
        :returns: ids of images that were not settled, because another transaction has locked rows
            of them.
        """
        with self.database.transaction() as connection:
            now = read_now(connection)
            _, blocked = lock_images(connection, [end.image_id for end in settlements if end.left])
            leases, locked = lock_leases(
                connection, [number for end in settlements for number in (*end.gone, *end.left)]
            )
            blocked.update(
                end.image_id for end in settlements if not locked.isdisjoint((*end.gone, *end.left))
            )
            free = [end for end in settlements if end.image_id not in blocked]
            gone = [number for end in free for number in end.gone]
            handed_back = [
                end for end in free if any(leases.get(number) == end.lease for number in end.left)
            ]
            if gone:
                # Even if another agent has the claim by now: the data is gone.
                connection.execute(
                    sa.update(image_locations)
                    .where(
                        image_locations.c.id.in_(gone),
                        image_locations.c.status == PENDING_DELETE,
                    )
                    .values(status=DELETED, deleted_at=now, updated_at=now)
                )
            for whole, status in ((True, PENDING_DELETE), (False, DELETED)):
                returning = [end for end in handed_back if end.whole == whole]
                if not returning:
                    continue
                # The status excludes the live images of orphans.
                connection.execute(
                    sa.update(images)
                    .where(
                        images.c.id.in_([end.image_id for end in returning]),
                        images.c.status == DELETED,
                    )
                    .values(status=status, updated_at=now)
                )
                if not whole:
                    _backdate_leases(connection, returning, claim_timeout)
        return blocked


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


def _orphans_of_imports(
    connection: sa.Connection, sights: Mapping[str, Sight], now: datetime
) -> dict[str, Sight]:
    """Return the orphans whose images Glance is importing into a store, as images that wait.

    Until the import ends, no row tells of what it writes. Into the store that the orphan is in,
    Swift's driver writes segments of the same names, which a delete of the orphan would take along.
    """
    orphans = [
        image_id
        for image_id, sight in sights.items()
        if isinstance(sight.decision, Scrub) and sight.decision.kind is Kind.ORPHAN
    ]
    if not orphans:
        return {}
    properties = image_properties.c
    importing = connection.execute(
        sa.select(properties.image_id).where(
            properties.image_id.in_(orphans),
            properties.name.in_(_IMPORTING),
            properties.value != "",
            properties.deleted == sa.false(),
            sa.func.coalesce(properties.updated_at, properties.created_at) > now - _IMPORT_LONGEST,
        )
    ).scalars()
    wait = Wait(_IMPORT_LOOK_SECONDS)
    return {image_id: replace(sights[image_id], decision=wait) for image_id in importing}


def _new_lease(sights: Iterable[Sight], now: datetime, policy: Policy) -> datetime:
    """Return a lease that none of the locations has had before.

    An image that is handed back and claimed again within a second must not get the same lease
    twice: an agent that repeats the first settlement, because its answer was lost, would hand back
    the second agent's claim.
    """
    # Leases that were handed back are backdated by the claim timeout.
    older = dict.fromkeys(Kind, policy.claim_timeout) | {Kind.PENDING: timedelta(0)}
    ahead = [
        location.updated_at - now + older[sight.decision.kind] + timedelta(seconds=1)
        for sight in sights
        if isinstance(sight.decision, Scrub)
        for location in sight.decision.locations
        if location.updated_at is not None
    ]
    # A time far ahead is not a lease but was written by a host with a wrong clock. A lease after it
    # would not expire.
    ahead = [span for span in ahead if timedelta(0) < span <= 2 * policy.claim_timeout]
    return max([now, *(now + span for span in ahead)]).replace(microsecond=0)


def _lock_unchanged(connection: sa.Connection, claims: Sequence[Claim]) -> list[Claim]:
    """Lock the locations of claims and return the claims whose leases are as they were read.

    An agent that lost a claim may have renewed its lease since the read.
    """
    leases, _ = lock_leases(connection, [row.id for claim in claims for row in claim.locations])
    return [
        claim
        for claim in claims
        if all(row.id in leases and leases[row.id] == row.updated_at for row in claim.locations)
    ]


def _stamp(connection: sa.Connection, claims: Sequence[Claim], lease: datetime) -> None:
    """Write claims to rows that this transaction has locked."""
    claimed = [claim.image.id for claim in claims]
    locations = [location.id for claim in claims for location in claim.locations]
    if claimed:
        # The status excludes the live images of orphans.
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


def _renew(connection: sa.Connection, claims: Sequence[Claim], lease: datetime) -> None:
    """Write a new lease to locations that this transaction has locked."""
    if not claims:
        return
    locations = [location.id for claim in claims for location in claim.locations]
    connection.execute(
        sa.update(image_locations)
        .where(image_locations.c.id.in_(locations))
        .values(updated_at=lease)
    )
    # So that a sweep of recent changes finds the image if this agent dies; if its row is locked, a
    # full sweep does. The image of an orphan is live, and its time does not change.
    free, _ = lock_images(connection, [claim.image.id for claim in claims])
    connection.execute(
        sa.update(images)
        .where(images.c.id.in_(free), images.c.status == DELETED)
        .values(updated_at=lease)
    )


def _backdate_leases(
    connection: sa.Connection, ends: Sequence[Settlement], claim_timeout: timedelta
) -> None:
    """Backdate the leases of locked images by the claim timeout, so that they have expired."""
    by_lease: dict[datetime, list[int]] = {}
    for end in ends:
        by_lease.setdefault(end.lease, []).extend(end.left)
    for lease, left in by_lease.items():
        connection.execute(
            sa.update(image_locations)
            .where(image_locations.c.id.in_(left), image_locations.c.status == PENDING_DELETE)
            .values(updated_at=lease - claim_timeout)
        )
