# SPDX-License-Identifier: Apache-2.0
"""Finds out what ready images need: looks at them for their store, claims them, makes them work."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from oslo_log import log as logging

from evscrub.config.settings import Settings
from evscrub.domain import verdict as verdicts
from evscrub.domain.clock import Clock, DatabaseClock, Moment, epoch
from evscrub.domain.decisions import Damaged, Kind, Leave, LocationRow, Policy, Scrub, Wait
from evscrub.domain.verdict import SHARED, StoreNotUsableError, Verdict, judge
from evscrub.flow_control.owner_limit import OwnerPace
from evscrub.queueing.delay_queue import DelayQueue, Taken
from evscrub.registry.calls import RegistryAwayError, RegistryCalls
from evscrub.registry.claims import Claim, Claims, Seen, Sight
from evscrub.registry.database import UNAVAILABLE
from evscrub.registry.faults import is_of_rows
from evscrub.registry.live_images import LiveImages
from evscrub.registry.shared_urls import SharedUrls
from evscrub.scrubbing.job import Work
from evscrub.scrubbing.lane import Again, Lane
from evscrub.scrubbing.witness_finder import WitnessFinder
from evscrub.stores.backends import Stores, Target
from evscrub.telemetry.statistics import Record

LOG = logging.getLogger(__name__)

#: The lane of images whose store is not known yet.
UNKNOWN_LANE = "?"
#: The lane of images that no usable store has a location of; claims end at once there.
NO_STORE = ""
_LOCKED_SECONDS = 1.0
#: How long no image is claimed after the database's clock disagreed.
_DISPUTE_SECONDS = 1.0
#: Why claims are refused is logged so often.
_TELL_SECONDS = 60.0


class Claimer:
    """Turns ready images into work, or lets go of them."""

    def __init__(
        self,
        queue: DelayQueue,
        claims: Claims,
        calls: RegistryCalls,
        stores: Stores,
        clock: Clock,
        database_clock: DatabaseClock,
        record: Record,
        settings: Settings,
    ) -> None:
        self.settings = settings
        self._queue = queue
        self._claims = claims
        self._calls = calls
        self._stores = stores
        self._shared_urls = SharedUrls(claims.database, stores, clock)
        self.witness_finder = WitnessFinder(
            self._shared_urls.live_ids, LiveImages(claims.database).read, stores.resolve
        )
        self._clock = clock
        self._database_clock = database_clock
        self._record = record
        self._owners = OwnerPace(settings.owner_rate)
        self._paced: set[str] = set()  #: images that wait for their owner's turn
        # An event may name any owner: what it tells of takes its turn once the registry was asked.
        queue.first_lane = UNKNOWN_LANE
        queue.swept_lane = self._known_lane()
        self._refused_until = 0.0
        self._told_at: float | None = None

    def change(self, settings: Settings) -> None:
        """Apply changed options."""
        old, self.settings = self.settings, settings
        self._queue.swept_lane = self._known_lane()
        if settings.owner_rate != old.owner_rate:
            self._change_owner_rate(settings.owner_rate)

    def _known_lane(self) -> str:
        """Return the lane of images whose owner the registry has told.

        Where there is one store they need not be looked at for theirs, but for a cap by owner,
        which is charged then.
        """
        stores = self._stores.deletable
        return stores[0] if len(stores) == 1 and not self.settings.owner_rate else UNKNOWN_LANE

    def _change_owner_rate(self, rate: float) -> None:
        """Let images that wait for a turn at the old rate come for one at the new."""
        self._owners = OwnerPace(rate)
        now = self._database_clock.now()
        paced, self._paced = self._paced, set()
        for image_id in paced:
            if not self._queue.is_taken(image_id) and self._queue.cancel(image_id):
                self._queue.add(image_id, now)

    async def look(self, taken: Sequence[Taken]) -> None:
        """Send each image to its lane, or wherever else it belongs."""
        asked = self._clock.moment()
        ids = [image.image_id for image in taken]
        try:
            seen = await self._calls.call(self._claims.look, ids, self.settings.policy)
        except RegistryAwayError:
            self.put_back(taken, UNKNOWN_LANE)
            return
        self._database_clock.observe(seen.now, asked)
        # What may raise comes first: its batch is taken apart then, and looked at again.
        lanes = {
            image_id: self._lane_of(sight.decision)
            for image_id, sight in seen.sights.items()
            if isinstance(sight.decision, Scrub)
        }
        for image in taken:
            sight = seen.sights[image.image_id]
            if isinstance(sight.decision, Scrub):
                self._route(image, lanes[image.image_id], sight)
            else:
                self._set_aside(image, sight)

    async def claim(self, lane: Lane, taken: Sequence[Taken]) -> list[Work]:
        """Claim images; returns the work that they make."""
        asked = self._clock.moment()
        ids = [image.image_id for image in taken]
        self._paced.difference_update(ids)
        try:
            seen, shared = await self._calls.call(self._claim, ids, self.settings.policy)
        except RegistryAwayError:
            # Claims that were made, if any, run out and are taken over.
            self.put_back(taken, lane.name)
            return []
        self._database_clock.observe(seen.now, asked)
        if seen.refused:
            self._refuse()
            self.put_back(taken, lane.name)
            return []
        self._trust()
        claims = {claim.image.id: claim for claim in seen.claims}
        works = []
        for image in taken:
            claim = claims.get(image.image_id)
            sight = seen.sights.get(image.image_id)
            if claim is not None:
                works.append(self._make_work(image, claim, asked, shared))
            elif sight is not None and not isinstance(sight.decision, Scrub):
                self._set_aside(image, sight)
            else:
                # Locked by somebody, or gone from the registry: a look will tell.
                self.put_back([image], UNKNOWN_LANE, after_seconds=_LOCKED_SECONDS)
        return works

    @property
    def refused_seconds(self) -> float:
        """How long to claim nothing, since the database's clock disagreed; 0 else."""
        return max(0.0, self._refused_until - self._clock.boot())

    def _refuse(self) -> None:
        now = self._clock.boot()
        self._refused_until = now + _DISPUTE_SECONDS
        if self._told_at is None or now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            LOG.warning("Nothing is claimed: %s", disputed(self._database_clock.dispute_seconds))

    def _trust(self) -> None:
        if self._told_at is not None:
            self._told_at = None
            LOG.info("The database's clock agrees with the estimate: images are claimed again")

    def _claim(self, image_ids: Sequence[str], policy: Policy) -> tuple[Seen, dict[int, Verdict]]:
        """Claim images, and tell which of their locations' data another one may want."""
        seen = self._claims.claim(image_ids, policy)
        return seen, self._look_for_shared(seen.claims)

    def _look_for_shared(self, claims: Sequence[Claim]) -> dict[int, Verdict]:
        """Tell whose data another one may want; where that raises, of half of the claims at a time.

        They are made: those that it does not raise for are to go on.
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
        """Return what holds of locations claimed before whose data one may want by now; blocks."""
        return self._shared_urls.among(rows, just_claimed=False)

    def put_back(
        self, taken: Sequence[Taken], lane: str | None, *, after_seconds: float = 0.0
    ) -> None:
        """Return images to the queue that nothing was done about, as far as they are out of it."""
        now = self._database_clock.now()
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

    def _lane_of(self, decision: Scrub) -> str:
        """Return the lane of the first location that a usable store has."""
        for row in decision.locations:
            with suppress(StoreNotUsableError):
                return self._stores.resolve(row).store
        return NO_STORE

    def _route(self, taken: Taken, lane: str, sight: Sight) -> None:
        # From here on the registry's owner counts, not what the event said.
        owner = None if sight.image is None else sight.image.owner
        now = self._database_clock.now()
        turn = self._owners.turn(owner, now)
        if turn > now:
            self._paced.add(taken.image_id)
        due = turn if turn > now else taken.due
        given_back = isinstance(sight.decision, Scrub) and sight.decision.kind is Kind.GIVEN_BACK
        queue_lane = self._queue_lane(taken.image_id, lane, failed_before=given_back)
        self._queue.done(taken.image_id)
        self._queue.add(taken.image_id, due, owner=owner, lane=queue_lane, source=taken.source)

    def _queue_lane(
        self, image_id: str, store: str | None, *, failed_before: bool = False
    ) -> str | Again | None:
        """Return the queue's lane of an image."""
        if store in {None, UNKNOWN_LANE}:
            return store
        return Again(store) if failed_before or image_id in self._record.troubles else store

    def _set_aside(self, taken: Taken, sight: Sight) -> None:
        """Let go of an image that is not to be scrubbed now."""
        self._queue.done(taken.image_id)
        match sight.decision:
            case Wait(seconds):
                if seconds <= self.settings.horizon_seconds:
                    self._queue.add(
                        taken.image_id,
                        self._database_clock.now() + seconds,
                        owner=None if sight.image is None else sight.image.owner,
                        lane=self._queue.swept_lane,
                        source=taken.source,
                    )
            case Damaged(reason):
                if self._record.found_damaged(taken.image_id, reason):
                    LOG.warning("Image %s is damaged and left alone: %s", taken.image_id, reason)
            case Leave(reason):
                self._record.forget(taken.image_id)
                self._record.left_alone[reason] += 1

    def _make_work(
        self, taken: Taken, claim: Claim, asked: Moment, shared: Mapping[int, Verdict]
    ) -> Work:
        due = taken.due
        if claim.image.deleted_at is not None and claim.kind is not Kind.ORPHAN:
            due = epoch(claim.image.deleted_at) + self.settings.policy.scrub_time.total_seconds()
        work = Work(claim, claim.lease, asked, due, taken.source, ready_at=taken.due)
        known = taken.image_id in self._record.troubles
        work.first = not known and claim.kind is not Kind.GIVEN_BACK
        alike: dict[str, list[tuple[LocationRow, Target]]] = {}
        for row in claim.locations:
            verdict = shared.get(row.id)
            if verdict is SHARED:
                self._judge_at_once(work, row, verdict)
                continue
            try:
                target = self._stores.resolve(row)
            except StoreNotUsableError as error:
                self._judge_at_once(work, row, judge(error, ""), error.store)
                continue
            except Exception as error:
                # The claim is made: it is to be released, whatever its rows hold.
                LOG.exception("A location of image %s cannot be resolved", claim.image.id)
                unusable = StoreNotUsableError(verdicts.BAD_URL, type(error).__name__)
                self._judge_at_once(work, row, judge(unusable, ""))
                continue
            if verdict is not None:
                self._judge_at_once(work, row, verdict)
                continue
            others = alike.setdefault(target.key, [])
            for first, other in others:
                if self._stores.are_same(target, other):
                    work.twins.setdefault(first.id, []).append(row.id)
                    break
            else:
                others.append((row, target))
                work.targets.append((row, target))
        return work

    def _judge_at_once(
        self, work: Work, row: LocationRow, verdict: Verdict, store: str = ""
    ) -> None:
        """Judge a location that no store needs to be asked about.

        :param store: the store that it is in, where that is known.
        """
        # A name from the registry would give the metric as many labels as people can think of.
        if not store:
            store = row.store if row.store and row.store in self._stores.names else NO_STORE
        work.judged(row, store, verdict, self._database_clock.now())


def disputed(seconds: float | None) -> str:
    """Say that the database's clock cannot be right, and what to do.

    :param seconds: how far it is ahead of the estimate; None if a reading has settled that since.
    """
    seconds = seconds or 0.0
    return (
        f"the database's clock is {abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'}"
        " what this agent takes for its time. Has the connection moved to a node whose clock is"
        " off? Let NTP set the clocks of all database nodes and of this host; 'evscrub check' tells"
        " how far they are apart. If the database is right, restart the agent"
    )
