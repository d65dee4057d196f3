# SPDX-License-Identifier: Apache-2.0
"""Assigns ready images to lanes, claims them, and makes jobs of the claims."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from oslo_log import log as logging

from evscrub.domain import verdict as verdicts
from evscrub.domain.clock import Moment, epoch
from evscrub.domain.decisions import Damaged, Kind, Leave, LocationRow, Policy, Scrub, Wait
from evscrub.domain.verdict import SHARED, StoreNotUsableError, Verdict, judge
from evscrub.flow_control.owner_limit import OwnerLimit
from evscrub.queueing.delay_queue import DelayQueue, Taken
from evscrub.queueing.turns import owner_key
from evscrub.registry.claims import Claim, Claims, Seen, Sight
from evscrub.registry.database import UNAVAILABLE
from evscrub.registry.faults import is_of_rows
from evscrub.registry.gateway import RegistryAwayError
from evscrub.registry.live_images import LiveImages
from evscrub.registry.shared_urls import SharedUrls
from evscrub.scrubbing.claiming import Again
from evscrub.scrubbing.context import Context
from evscrub.scrubbing.index_renewal import IndexRenewal
from evscrub.scrubbing.job import Job, Lease, Location
from evscrub.scrubbing.lane import Lane
from evscrub.scrubbing.lease_keeper import LeaseKeeper
from evscrub.scrubbing.witness_finder import WitnessFinder
from evscrub.stores.backends import Stores, Target
from evscrub.telemetry.log_limit import LogLimit

LOG = logging.getLogger(__name__)

#: Lane of images whose store is not known yet.
UNKNOWN_LANE = "?"
#: Lane of images without a location in a usable store; their jobs end right after the claim.
NO_STORE = ""
_LOCKED_SECONDS = 1.0
#: Pause of claims after a reading of the database's clock was disputed.
_DISPUTE_SECONDS = 1.0
#: Interval of the warning that claims are refused.
_TELL_SECONDS = 60.0


class Claimer:
    """Turns ready images into jobs, and drops or delays those that are not to be scrubbed."""

    def __init__(
        self,
        queue: DelayQueue,
        claims: Claims,
        stores: Stores,
        leases: LeaseKeeper,
        owners: OwnerLimit,
        context: Context,
    ) -> None:
        self._queue = queue
        self._claims = claims
        self._stores = stores
        self._leases = leases
        self._context = context
        self._shared_urls = SharedUrls(claims.database, stores, context.clock)
        self.index_renewal = IndexRenewal(self._shared_urls, context.calls)
        self.witness_finder = WitnessFinder(
            self._shared_urls.live_ids, LiveImages(claims.database).read, stores.resolve
        )
        self._owners = owners
        # An event's owner is not trusted: the registry is asked before an owner's rate is charged.
        queue.first_lane = UNKNOWN_LANE
        queue.swept_lane = self._known_lane()
        self._refused_until = 0.0
        self._refusal_limit = LogLimit(_TELL_SECONDS)

    def change(self) -> None:
        """Apply changed options; what the old owner rate delayed is due for the new one."""
        now = self._context.database_clock.now()
        delayed = self._owners.change(self._context.settings.owner_rate, now)
        self._queue.swept_lane = self._known_lane()
        for image_id in delayed:
            if not self._queue.is_taken(image_id) and self._queue.cancel(image_id):
                self._queue.add(image_id, now)

    def _known_lane(self) -> str:
        """Return the queue lane for images whose owner is known from the registry.

        With a single store there is nothing to look up, unless there is a rate per owner: turns
        are reserved during the look.
        """
        stores = self._stores.deletable
        return stores[0] if len(stores) == 1 and not self._owners.rate else UNKNOWN_LANE

    async def look(self, taken: Sequence[Taken]) -> None:
        """Queue each image in the lane of its store, or set it aside if it is not to be scrubbed.

        If the registry is unavailable, the images return to the queue.

        :param taken: images of :data:`UNKNOWN_LANE`.
        """
        asked = self._context.clock.moment()
        ids = [image.image_id for image in taken]
        try:
            seen = await self._context.calls.call(
                self._claims.look, ids, self._context.settings.policy
            )
        except RegistryAwayError:
            self.put_back(taken, UNKNOWN_LANE)
            return
        read_at = self._context.database_clock.observe(seen.now, asked)
        # What may raise comes before any change: the batch is split then and looked at again.
        lanes = {
            image_id: self._lane_of(sight.decision)
            for image_id, sight in seen.sights.items()
            if isinstance(sight.decision, Scrub | Wait)
        }
        for image in taken:
            sight = seen.sights[image.image_id]
            if isinstance(sight.decision, Scrub):
                self._route(image, lanes[image.image_id], sight)
            else:
                self._set_aside(image, sight, lanes.get(image.image_id, UNKNOWN_LANE), read_at)

    async def claim(self, lane: Lane, taken: Sequence[Taken]) -> list[Job]:
        """Claim images and return their jobs.

        Images that cannot be claimed are set aside or returned to the queue; all of them if the
        registry is unavailable or refuses claims.

        :param lane: the lane that the images were taken from.
        """
        asked = self._context.clock.moment()
        ids = [image.image_id for image in taken]
        self._owners.started(ids)
        try:
            seen, shared = await self._context.calls.call(
                self._claim, ids, self._context.settings.policy
            )
        except RegistryAwayError:
            # If the commit went through after all, those claims expire and are taken over.
            self.put_back(taken, lane.name)
            return []
        lane.claiming.took(self._context.clock.since(asked))
        self.index_renewal.claimed()
        read_at = self._context.database_clock.observe(seen.now, asked)
        if seen.refused:
            self._refuse()
            self.put_back(taken, lane.name)
            return []
        self._trust()
        claims = {claim.image.id: claim for claim in seen.claims}
        jobs = []
        for image in taken:
            claim = claims.get(image.image_id)
            sight = seen.sights.get(image.image_id)
            if claim is not None:
                jobs.append(self._make_job(image, claim, asked, shared))
            elif sight is not None and not isinstance(sight.decision, Scrub):
                # Not by its locations: they may raise, and the others are claimed by now.
                self._set_aside(image, sight, self._known_lane(), read_at)
            else:
                # Locked by another transaction, or purged: look at it again later.
                self.put_back([image], UNKNOWN_LANE, after_seconds=_LOCKED_SECONDS)
        # Only once all jobs are made: if that raises, the claims must expire, not be renewed.
        for job in jobs:
            self._leases.add(job)
        return jobs

    @property
    def refused_seconds(self) -> float:
        """Remaining pause of claims after a disputed clock reading, seconds; 0 without one."""
        return max(0.0, self._refused_until - self._context.clock.boot())

    def _refuse(self) -> None:
        now = self._context.clock.boot()
        self._refused_until = now + _DISPUTE_SECONDS
        if self._refusal_limit.allows(now):
            dispute_seconds = self._context.database_clock.dispute_seconds
            LOG.warning("Nothing is claimed: %s", disputed(dispute_seconds))

    def _trust(self) -> None:
        if self._refusal_limit.reset():
            LOG.info("The database's clock agrees with the estimate: images are claimed again")

    def _claim(self, image_ids: Sequence[str], policy: Policy) -> tuple[Seen, dict[int, Verdict]]:
        """Claim images, and find out which of their locations share their data; blocks."""
        seen = self._claims.claim(image_ids, policy)
        return seen, self._look_for_shared(seen.claims)

    def _look_for_shared(self, claims: Sequence[Claim]) -> dict[int, Verdict]:
        """Return verdicts of locations that share their data, by row id; blocks.

        The claims are committed already, so a row that makes the query raise must not stop the
        others: the claims are halved until it is alone, and then get a verdict of their own.

        :raises Exception: one of :data:`UNAVAILABLE` that is not about the rows.
        """
        rows = [row for claim in claims for row in claim.locations]
        try:
            return self._shared_urls.among(rows)
        except Exception as error:
            if isinstance(error, UNAVAILABLE) and not is_of_rows(error):
                raise
            if len(claims) == 1:
                return dict.fromkeys([row.id for row in rows], verdicts.bad_row(error))
        middle = len(claims) // 2
        return self._look_for_shared(claims[:middle]) | self._look_for_shared(claims[middle:])

    def look_again(self, rows: Collection[LocationRow]) -> dict[int, Verdict]:
        """Return verdicts of claimed locations that share their data by now, by row id; blocks."""
        return self._shared_urls.among(rows)

    def put_back(
        self, taken: Sequence[Taken], lane: str | None, *, after_seconds: float = 0.0
    ) -> None:
        """Return taken images to the queue unchanged; skip those that are not taken any more.

        :param lane: the store whose lane they wait in, or :data:`UNKNOWN_LANE`.
        :param after_seconds: minimum delay; 0 keeps the due time.
        """
        now = self._context.database_clock.now()
        for image in filter(lambda image: self._queue.is_taken(image.image_id), taken):
            self._queue.done(image.image_id)
            due = max(image.due, now + after_seconds) if after_seconds else image.due
            self._queue.add(
                image.image_id,
                due,
                owner=image.owner,
                lane=self._queue_lane(image.image_id, lane),
                source=image.source,
            )

    def _lane_of(self, decision: Scrub | Wait) -> str:
        """Return the queue lane for an image after a look: its store, if that is known.

        An image that waits is looked at again when it is due if its store is not known, and if
        there is a rate per owner.
        """
        if isinstance(decision, Scrub):
            return self._store_of(decision.locations)
        known = self._known_lane()
        if known != UNKNOWN_LANE or self._owners.rate:
            return known
        return self._store_of(decision.locations) or UNKNOWN_LANE

    def _store_of(self, locations: Sequence[LocationRow]) -> str:
        """Return the store of the first location that resolves; :data:`NO_STORE` if none does."""
        for row in locations:
            with suppress(StoreNotUsableError):
                return self._stores.resolve(row).store
        return NO_STORE

    def _route(self, taken: Taken, lane: str, sight: Sight) -> None:
        # The registry's owner replaces the event's.
        owner = None if sight.image is None else sight.image.owner
        now = self._context.database_clock.now()
        turn = self._owners.turn(taken.image_id, owner_key(owner), now)
        due = turn if turn > now else taken.due
        handed_back = isinstance(sight.decision, Scrub) and sight.decision.kind is Kind.HANDED_BACK
        queue_lane = self._queue_lane(taken.image_id, lane, failed_before=handed_back)
        self._queue.done(taken.image_id)
        self._queue.add(taken.image_id, due, owner=owner, lane=queue_lane, source=taken.source)

    def _queue_lane(
        self, image_id: str, store: str | None, *, failed_before: bool = False
    ) -> str | Again | None:
        """Return the queue lane of an image: images that failed before have one of their own."""
        if store in {None, UNKNOWN_LANE}:
            return store
        return Again(store) if failed_before or image_id in self._context.record.troubles else store

    def _set_aside(self, taken: Taken, sight: Sight, lane: str, read_at: float) -> None:
        """Remove an image that is not to be scrubbed now; queue it in `lane` if it is due soon.

        :param read_at: when its rows were read, by the estimate of the database's clock.
        """
        self._queue.done(taken.image_id)
        match sight.decision:
            case Wait(seconds):
                if seconds <= self._context.settings.horizon_seconds:
                    self._queue.add(
                        taken.image_id,
                        read_at + seconds,
                        owner=None if sight.image is None else sight.image.owner,
                        lane=self._queue_lane(taken.image_id, lane),
                        source=taken.source,
                    )
                else:  # a sweep finds it when it is due, if it still exists then
                    self._context.record.forget(taken.image_id)
            case Damaged(reason):
                if self._context.record.found_damaged(taken.image_id, reason):
                    LOG.warning("Image %s is damaged and left alone: %s", taken.image_id, reason)
            case Leave(reason):
                self._context.record.forget(taken.image_id)
                self._context.record.left_alone[reason] += 1

    def _make_job(
        self, taken: Taken, claim: Claim, asked: Moment, shared: Mapping[int, Verdict]
    ) -> Job:
        due = taken.due
        if claim.image.deleted_at is not None and claim.kind is not Kind.ORPHAN:
            scrub_time = self._context.settings.policy.scrub_time
            due = epoch(claim.image.deleted_at) + scrub_time.total_seconds()
        lease = Lease(claim.lease, asked)
        job = Job(claim, lease, due, taken.source, ready_at=taken.due)
        known = taken.image_id in self._context.record.troubles
        job.first = not known and claim.kind is not Kind.HANDED_BACK
        alike: dict[str, list[tuple[Location, Target]]] = {}
        for row in claim.locations:
            target = self._target(claim, row, shared.get(row.id))
            if isinstance(target, Target):
                others = alike.setdefault(target.key, [])
                twin = next((one for one, of in others if self._stores.are_same(target, of)), None)
                if twin is not None:
                    twin.twins.append(row.id)
                    continue
                location = Location(row, target)
                others.append((location, target))
            else:
                location = Location(row)
                job.judge(location, *target, self._context.database_clock.now())
            job.locations.append(location)
        return job

    def _target(
        self, claim: Claim, row: LocationRow, shared: Verdict | None
    ) -> Target | tuple[str, Verdict]:
        """Return the target of a location, or its store and verdict if nothing is to be deleted.

        :param shared: verdict if the location may share its data; None if it does not.
        :returns: with a verdict, the store is empty if it is unknown.
        """
        # Only configured names: the registry's would make the metric's labels unbounded.
        known = row.store if row.store and row.store in self._stores.names else NO_STORE
        if shared is SHARED:
            return known, shared
        try:
            target = self._stores.resolve(row)
        except StoreNotUsableError as error:
            return error.store or known, judge(error, "")
        except Exception as error:
            # The claim is committed and must be settled, whatever its rows contain.
            LOG.exception("Cannot resolve a location of image %s", claim.image.id)
            unusable = StoreNotUsableError(verdicts.BAD_URL, type(error).__name__)
            return known, judge(unusable, "")
        return target if shared is None else (known, shared)


def disputed(seconds: float | None) -> str:
    """Return a message about a disputed database clock and what to do about it.

    :param seconds: how far it is ahead of the estimate, negative if behind; None if a later reading
        has settled the dispute.
    """
    seconds = seconds or 0.0
    return (
        f"the database's clock is {abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'}"
        " this agent's estimate of it. Has the connection moved to a node whose clock is"
        " off? Let NTP set the clocks of all database nodes and of this host; 'evscrub check' shows"
        " how far they are apart. If the database is right, restart the agent"
    )
