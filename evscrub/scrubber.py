# SPDX-License-Identifier: Apache-2.0
"""The consumer: takes due images from the queue, claims them and deletes their data.

One pump decides what to start; everything that blocks runs in worker threads. An image goes

    ready, store unknown -> look -> ready in its lane -> claim -> backlog -> work -> settle

and each arrow only ever moves images that the step before found fit, so that any step may fail,
or the process die, and the image is found again by the queue or by a sweep.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup
from oslo_log import log as logging

from evscrub.breaker import Breaker, State
from evscrub.clock import Clock, DatabaseClock, Moment, epoch
from evscrub.delay_queue import DelayQueue, Source, Taken
from evscrub.lane import Change, Lane, Work
from evscrub.limits import RateLimit
from evscrub.owner_pace import OwnerPace
from evscrub.pace import Pace
from evscrub.registry.claims import Claim, Claims, Seen
from evscrub.registry.database import UNAVAILABLE
from evscrub.registry.shared_urls import SharedUrls
from evscrub.retry import Delays, delay, is_parked
from evscrub.rules import Damaged, Kind, Leave, LocationRow, Policy, Scrub, Wait
from evscrub.stores import Stores
from evscrub.verdict import FINISHED, GONE, SHARED, Outcome, StoreNotUsableError, Verdict, judge

LOG = logging.getLogger(__name__)

T = TypeVar("T")

#: The lane of images whose store is not known yet.
UNKNOWN_LANE = None
_LOOK_SIZE = 500
_REGISTRY_RETRY_SECONDS = 5.0
#: A delete is begun only while its lease is younger than this part of the claim timeout.
_AMPLE = 2 / 3
#: How long "not found" waits for something that tells whether the store can be believed.
_SUSPECT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator tunes, as read from the configuration."""

    policy: Policy
    concurrency: int
    rate: float
    burst: float
    batch_size: int
    delays: Delays
    horizon_seconds: float
    store_concurrency: Mapping[str, int] = field(default_factory=dict)
    store_rate: Mapping[str, float] = field(default_factory=dict)
    owner_rate: float = 0.0
    not_found_limit: int = 0
    acknowledged_stores: frozenset[str] = frozenset()

    def allowed(self, store: str) -> tuple[int, float]:
        """How many deletes at a time, and how many a second (0: any), a store may get."""
        concurrency = min(self.concurrency, self.store_concurrency.get(store, self.concurrency))
        return concurrency, self.store_rate.get(store, 0.0)

    def not_found_limit_of(self, store: str) -> int:
        """How many "not found" in a row a store is believed before it is paused, 0 for any."""
        return 0 if store in self.acknowledged_stores else self.not_found_limit


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """An image whose data is gone, for whoever listens."""

    image_id: str
    owner: str | None
    size_bytes: int
    late_seconds: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an image could not be scrubbed so far."""

    verdict: Verdict
    tries: int
    parked: bool
    store: str | None


@dataclass(slots=True)
class Counts:
    """What a scrubber did since it started."""

    scrubbed: int = 0
    bytes_reclaimed: int = 0
    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    left_alone: Counter[str] = field(default_factory=Counter)
    missed_by_bus: int = 0
    leases_lost: int = 0
    late_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))


class Scrubber:
    """The consumer of a delay queue.

    :param queue: times in it are the database's, seconds since the epoch.
    :param on_scrubbed: told of each image when its data is gone.
    """

    def __init__(
        self,
        queue: DelayQueue,
        claims: Claims,
        stores: Stores,
        clock: Clock,
        database_clock: DatabaseClock,
        settings: Settings,
        on_scrubbed: Callable[[Scrubbed], None] = lambda _: None,
    ) -> None:
        self.queue = queue
        self.counts = Counts()
        self.troubles: dict[str, Trouble] = {}
        self.damaged: dict[str, str] = {}
        self.lanes: dict[str, Lane] = {}
        #: Images deleted since this time should have come by the bus; None while it is away.
        self.bus_since: float | None = None
        self._claims = claims
        self._shared_urls = SharedUrls(claims.database, stores.url, encrypted=stores.encrypted)
        self._stores = stores
        self._clock = clock
        self._database_clock = database_clock
        self._settings = settings
        self._on_scrubbed = on_scrubbed
        self._rate = RateLimit(settings.rate, settings.burst)
        self._rates: dict[str, RateLimit] = {}
        self._owners = OwnerPace(settings.owner_rate)
        #: Images that wait for their owner's turn, which is theirs when they come back.
        self._promised: set[str] = set()
        self._threads = anyio.CapacityLimiter(settings.concurrency)
        self._database_threads = anyio.CapacityLimiter(4)
        self._works: dict[str, Work] = {}
        self._running = 0
        self._looking = False
        self._registry_back_at = 0.0
        self._registry_failing = False
        self._ended: list[Work] = []
        self._settle = anyio.Event()
        self._changed = anyio.Event()
        self._draining = False
        self._tasks: TaskGroup

    # -- from outside

    def wake(self) -> None:
        """Look at the queue again: something was put in."""
        self._changed.set()

    def change(self, settings: Settings) -> None:
        """Apply changed options at once."""
        old, self._settings = self._settings, settings
        moved = (settings.policy.scrub_time - old.policy.scrub_time).total_seconds()
        if moved:
            self.queue.shift(moved)
        self._rate.change(settings.rate, settings.burst)
        self._owners.rate = settings.owner_rate
        self._threads.total_tokens = settings.concurrency
        for lane in self.lanes.values():
            lane.pace.allow(*settings.allowed(lane.name))
            lane.breaker.not_found_limit = settings.not_found_limit_of(lane.name)
            lane.breaker.reset()
            self._rates[lane.name].change(lane.pace.rate, settings.burst)
        self.wake()

    def pause_store(self, name: str, reason: str) -> None:
        """Ask nothing of a store until an operator acknowledges; for one that is not all there."""
        if name not in self._settings.acknowledged_stores:
            self._lane(name).breaker.blow(reason)

    async def run(self, drain_seconds: float, stop: anyio.Event) -> None:
        """Scrub until `stop`, then finish what is under way and release what was not begun.

        :param drain_seconds: how long deletes under way may take after `stop`.
        """
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._run_pump)
            tasks.start_soon(self._run_settler)
            tasks.start_soon(self._run_renewer)
            await stop.wait()
            await self._drain(drain_seconds)
            tasks.cancel_scope.cancel()

    @property
    def running(self) -> int:
        """Images being deleted right now."""
        return self._running

    # -- the pump

    async def _run_pump(self) -> None:
        while not self._draining:
            self._changed = anyio.Event()
            self._pump()
            due = self.queue.next_advance()
            now = self._database_clock.now()
            pause = 60.0 if due is None else min(60.0, max(0.0, due - now))
            pause = min(pause, self._settle_suspects())
            pause = min(pause, *(self._until_probe(lane) for lane in self.lanes.values()), pause)
            if not self._registry_is_up():
                pause = min(pause, max(0.0, self._registry_back_at - self._clock.boot()))
                pause = max(pause, 0.01)
            with anyio.move_on_after(pause):
                await self._changed.wait()

    def _pump(self) -> None:
        """Start whatever can be started now."""
        self.queue.advance(self._database_clock.now())
        if self._draining or not self._registry_is_up():
            return
        if self.queue.has_ready(UNKNOWN_LANE) and not self._looking:
            self._looking = True
            self._tasks.start_soon(self._look)
        self._pump_lanes()

    def _pump_lanes(self) -> None:
        """Begin claimed images, one of each lane in turn, and claim more where they run short."""
        now = self._clock.boot()
        began = True
        while began:
            began = False
            for lane in self.lanes.values():
                if self._running < self._settings.concurrency and lane.may_begin(now):
                    self._begin(lane, lane.backlog.popleft())
                    began = True
        if self._draining or not self._registry_is_up():
            return
        if len(self._ended) > 2 * self._settings.batch_size:
            return
        for lane in self.lanes.values():
            if not lane.claiming and self.queue.has_ready(lane.name):
                self._begin_claim(lane, now)

    def _begin_claim(self, lane: Lane, now: float) -> None:
        size = lane.claim_size(now, self._settings.batch_size, self._settings.rate)
        taken = self.queue.take(lane.name, size) if size else []
        if self._settings.owner_rate:
            taken = [image for image in taken if self._is_owners_turn(image, lane)]
        if taken:
            lane.claiming = True
            self._tasks.start_soon(self._claim, lane, taken)

    def _is_owners_turn(self, image: Taken, lane: Lane) -> bool:
        """Whether an image may begin; one that may not is put back until then."""
        now = self._database_clock.now()
        if image.image_id in self._promised:
            self._promised.discard(image.image_id)
            return True
        turn = self._owners.turn(image.owner, now)
        if turn > now:
            self._promised.add(image.image_id)
            self._put_back([image], lane.name, after_seconds=turn - now)
        return turn <= now

    def _until_probe(self, lane: Lane) -> float:
        """Seconds until a shut lane may be probed."""
        if lane.breaker.state is not State.OPEN:
            return 60.0
        return max(0.01, lane.breaker.opened_until - self._clock.boot())

    def _settle_suspects(self) -> float:
        """Believe stores whose "not found" was not followed by more; returns when to look again."""
        now = self._clock.boot()
        pause = 60.0
        for lane in self.lanes.values():
            while lane.suspects and now - lane.suspects[0].ended_boot >= _SUSPECT_SECONDS:
                self._end(lane.suspects.popleft())
            if lane.suspects:
                left = _SUSPECT_SECONDS - (now - lane.suspects[0].ended_boot)
                pause = min(pause, max(0.01, left))
        return pause

    def _registry_is_up(self) -> bool:
        return self._clock.boot() >= self._registry_back_at

    # -- look and claim

    async def _look(self) -> None:
        taken = self.queue.take(UNKNOWN_LANE, _LOOK_SIZE)
        asked = self._clock.moment()
        ids = [image.image_id for image in taken]
        try:
            seen = await self._in_database(self._claims.look, ids, self._settings.policy)
        except UNAVAILABLE as error:
            self._registry_failed(error)
            self._put_back(taken, UNKNOWN_LANE)
        else:
            self._database_clock.observe(seen.now, asked)
            for image in taken:
                self._route(image, seen)
        finally:
            self._looking = False
            self.wake()

    def _route(self, taken: Taken, seen: Seen) -> None:
        """Send an image that was looked at to its lane, or wherever else it belongs."""
        sight = seen.sights[taken.image_id]
        if not isinstance(sight.decision, Scrub):
            self._set_aside(taken, sight.decision)
            return
        # An image without a usable location goes to a lane too: there it is claimed and judged.
        lane = ""
        for location in sight.decision.locations:
            try:
                lane = self._stores.resolve(location).store
            except StoreNotUsableError:
                continue
            break
        self._lane(lane)
        self.queue.done(taken.image_id)
        owner = sight.image.owner if sight.image is not None else taken.owner
        self.queue.add(taken.image_id, taken.due, owner=owner, lane=lane, source=taken.source)

    def _set_aside(self, taken: Taken, decision: Wait | Leave | Damaged) -> None:
        """Let go of an image that is not to be scrubbed now."""
        image_id = taken.image_id
        self.queue.done(image_id)
        if isinstance(decision, Wait):
            if decision.seconds <= self._settings.horizon_seconds:
                due = self._database_clock.now() + decision.seconds
                self.queue.add(image_id, due, owner=taken.owner, source=taken.source)
            return
        self.troubles.pop(image_id, None)
        if isinstance(decision, Damaged):
            if image_id not in self.damaged:
                LOG.warning("Image %s is damaged and left alone: %s", image_id, decision.reason)
            self.damaged[image_id] = decision.reason
        else:
            self.damaged.pop(image_id, None)
            self.counts.left_alone[decision.reason] += 1

    async def _claim(self, lane: Lane, taken: Sequence[Taken]) -> None:
        asked = self._clock.moment()
        ids = [image.image_id for image in taken]
        try:
            seen = await self._in_database(self._claims.claim, ids, self._settings.policy)
            self._database_clock.observe(seen.now, asked)
            shared = await self._in_database(
                self._shared_urls.among, [row for claim in seen.claims for row in claim.locations]
            )
        except UNAVAILABLE as error:
            # Claims that were made, if any, run out and are taken over.
            self._registry_failed(error)
            self._put_back(taken, lane.name)
        else:
            claims = {claim.image.id: claim for claim in seen.claims}
            for image in taken:
                sight = seen.sights.get(image.image_id)
                if image.image_id in claims:
                    self._accept(image, claims[image.image_id], asked, shared)
                elif sight is not None and not isinstance(sight.decision, Scrub):
                    self._set_aside(image, sight.decision)
                else:
                    # Locked by somebody, or gone from the registry: a look will tell.
                    self._put_back([image], UNKNOWN_LANE, after_seconds=1)
        finally:
            lane.claiming = False
            self.wake()

    def _accept(self, taken: Taken, claim: Claim, asked: Moment, shared: set[int]) -> None:
        """Turn a claim into work, and end at once what needs no store."""
        due = taken.due
        if claim.image.deleted_at is not None and claim.kind is Kind.PENDING:
            due = epoch(claim.image.deleted_at) + self._settings.policy.scrub_time.total_seconds()
        work = Work(claim, claim.lease, asked, due, taken.source)
        self._works[claim.image.id] = work
        for row in claim.locations:
            if row.id in shared:
                self._judged(work, row, row.store or "", SHARED)
                continue
            try:
                work.targets.append((row, self._stores.resolve(row)))
            except StoreNotUsableError as error:
                self._judged(work, row, row.store or "", judge(error, ""))
        self._forward(work)

    def _forward(self, work: Work) -> None:
        """Send work to the lane of its next location, or end it where there is none."""
        if work.targets and not work.lost and not self._draining:
            lane = self._lane(work.targets[0][1].store)
            if not lane.is_shut(self._clock.boot()):
                lane.backlog.append(work)
                return
        self._end(work)

    def _end(self, work: Work) -> None:
        """Hand work over to be settled."""
        self._ended.append(work)
        self._settle.set()

    def _lane(self, name: str) -> Lane:
        lane = self.lanes.get(name)
        if lane is None:
            settings = self._settings
            pace = Pace(*settings.allowed(name))
            breaker = Breaker(settings.not_found_limit_of(name), random.uniform)
            lane = self.lanes[name] = Lane(name, pace, breaker)
            self._rates[name] = RateLimit(pace.rate, settings.burst)
        return lane

    # -- work

    def _begin(self, lane: Lane, work: Work) -> None:
        lane.running += 1
        self._running += 1
        self._tasks.start_soon(self._work, lane, work)

    async def _work(self, lane: Lane, work: Work) -> None:
        """Delete an image's locations, one after another, as far as they are in this lane."""
        try:
            while work.targets and work.targets[0][1].store == lane.name:
                # The slot was first: a token is not spent on waiting for one.
                await self._rates[lane.name].acquire()
                await self._rate.acquire()
                shut = lane.breaker.lets_through(self._clock.boot(), lane.running - 1) == 0
                if shut or self._draining or not self._is_ours(work):
                    break
                row, target = work.targets.popleft()
                verdict = await anyio.to_thread.run_sync(
                    self._stores.delete,
                    target,
                    limiter=self._threads,
                    # Work is cancelled only when the process ends, drained or not.
                    abandon_on_cancel=True,
                )
                self._judged(work, row, lane.name, verdict)
                self._answered(lane, work, row, verdict)
        finally:
            lane.running -= 1
            self._running -= 1
            if work.not_found and not work.targets and lane.breaker.not_found_limit:
                work.ended_boot = self._clock.boot()
                lane.suspects.append(work)
                self.wake()
            else:
                self._forward(work)
            self._pump_lanes()

    def _answered(self, lane: Lane, work: Work, row: LocationRow, verdict: Verdict) -> None:
        """Let the lane follow what its store answered."""
        if (
            verdict.outcome is Outcome.GONE
            and verdict != GONE
            and work.claim.kind is not Kind.STALE
        ):
            work.not_found.append(row.id)
        change = lane.answered(verdict, work.claim.kind, self._clock.boot())
        self._rates[lane.name].change(lane.pace.rate, self._settings.burst)
        if verdict == GONE:
            while lane.suspects:  # the store has what is in it, so what it has not is gone
                self._end(lane.suspects.popleft())
        if change is None:
            return
        _tell_change(lane, change)
        if change in {Change.OPENED, Change.BLOWN}:
            while lane.backlog:
                self._end(lane.backlog.popleft())
        if change is Change.BLOWN:
            while lane.suspects:
                suspect = lane.suspects.popleft()
                suspect.doubt()
                self._end(suspect)
            work.doubt()
        if verdict.outcome is Outcome.STORE_TROUBLE and change is Change.OPENED:
            self._tasks.start_soon(self._reload_stores)

    async def _reload_stores(self) -> None:
        """Load the drivers again: one that lost its write access finds it by no other way."""
        try:
            await anyio.to_thread.run_sync(self._stores.load, abandon_on_cancel=True)
        except Exception as error:  # noqa: BLE001 - drivers raise what they like
            LOG.warning("The stores cannot be loaded again: %s", type(error).__name__)

    def _is_ours(self, work: Work) -> bool:
        """Whether the lease has ample time left; asked right before every delete."""
        timeout = self._settings.policy.claim_timeout.total_seconds()
        if not work.lost and self._clock.since(work.asked) > timeout * _AMPLE:
            work.lost = True
        if work.lost:
            self.counts.leases_lost += 1
            LOG.warning("The claim of image %s ran out before its data was deleted", work.image_id)
        return not work.lost

    def _judged(self, work: Work, row: LocationRow, store: str, verdict: Verdict) -> None:
        """Take in the verdict on a location."""
        self.counts.outcomes[store, verdict.outcome.value, verdict.reason] += 1
        if verdict.outcome in FINISHED:
            work.gone.append(row.id)
            if verdict.outcome is Outcome.GONE:
                self.counts.bytes_reclaimed += work.claim.image.size or 0
        else:
            work.left.append(row.id)
            work.trouble = (store, verdict)
        work.ended_at = self._database_clock.now()

    # -- settle

    async def _run_settler(self) -> None:
        while True:
            await self._settle.wait()
            self._settle = anyio.Event()
            while self._ended:
                works, self._ended = self._ended, []
                try:
                    await self._in_database(
                        self._claims.settle, [work.settlement() for work in works]
                    )
                except UNAVAILABLE as error:
                    self._ended = works + self._ended
                    self._registry_failed(error)
                    await anyio.sleep(_REGISTRY_RETRY_SECONDS)
                else:
                    for work in works:
                        self._settled(work)
                    self.wake()

    def _settled(self, work: Work) -> None:
        image = work.claim.image
        self._works.pop(image.id, None)
        self.queue.done(image.id)
        if work.trouble is not None or work.left or work.targets:
            self._try_again(work)
            return
        self.troubles.pop(image.id, None)
        self.damaged.pop(image.id, None)
        self.counts.scrubbed += 1
        late = max(0.0, work.ended_at - work.due)
        self.counts.late_seconds.append(late)
        if work.source is Source.SWEEP and self._bus_should_have_told(work.claim):
            self.counts.missed_by_bus += 1
        LOG.debug("Image %s is scrubbed", image.id)
        self._on_scrubbed(Scrubbed(image.id, image.owner, image.size or 0, late))

    def _bus_should_have_told(self, claim: Claim) -> bool:
        deleted_at = claim.image.deleted_at
        return (
            claim.kind is Kind.PENDING
            and self.bus_since is not None
            and deleted_at is not None
            and epoch(deleted_at) > self.bus_since
        )

    def _try_again(self, work: Work) -> None:
        """Let an image wait that was not, or not wholly, scrubbed."""
        image = work.claim.image
        if work.trouble is None:  # not begun, or the lease ran out
            pause, store = 0.0, None
        else:
            store, verdict = work.trouble
            known = self.troubles.get(image.id)
            tries = 1 if known is None else known.tries + 1
            parked = is_parked(verdict.outcome, tries)
            pause = delay(verdict.outcome, tries, self._settings.delays, random.uniform)
            if known is None or known.verdict != verdict:
                LOG.log(
                    logging.INFO if verdict.outcome is Outcome.IN_USE else logging.WARNING,
                    "Image %s is not scrubbed from store %s: %s %s; next try in %.0f s",
                    image.id,
                    store or "?",
                    verdict.reason,
                    verdict.detail,
                    pause,
                )
            self.troubles[image.id] = Trouble(verdict, tries, parked, store)
        if not self._draining:
            due = self._database_clock.now() + pause
            self.queue.add(
                image.id, due, owner=image.owner, lane=store or UNKNOWN_LANE, source=work.source
            )

    # -- leases

    async def _run_renewer(self) -> None:
        timeout = self._settings.policy.claim_timeout.total_seconds()
        while True:
            await anyio.sleep(timeout / 6)
            aging = [
                work
                for work in self._works.values()
                if not work.lost and timeout / 3 < self._clock.since(work.asked) < timeout * _AMPLE
            ]
            if not aging:
                continue
            asked = self._clock.moment()
            held = [(work.claim, work.lease) for work in aging]
            try:
                kept, lease = await self._in_database(self._claims.renew, held)
            except UNAVAILABLE as error:
                self._registry_failed(error)
                continue
            ours = {claim.image.id for claim in kept}
            for work in aging:
                if work.image_id in ours:
                    work.lease, work.asked = lease, asked
                else:
                    work.lost = True

    # -- the end

    async def _drain(self, seconds: float) -> None:
        """Release what was not begun and wait for what was."""
        self._draining = True
        self.wake()  # the pump, for the last time: from here the event is only waited for below
        for lane in self.lanes.values():
            while lane.backlog:
                self._end(lane.backlog.popleft())
            while lane.suspects:
                suspect = lane.suspects.popleft()
                suspect.doubt()
                self._end(suspect)
        with anyio.move_on_after(seconds):
            while self._works or any(lane.claiming for lane in self.lanes.values()):
                self._changed = anyio.Event()
                await self._changed.wait()
        if self._works:
            LOG.warning(
                "%d images were not settled within drain_timeout: another agent takes them over"
                " when their claims run out",
                len(self._works),
            )

    # -- helpers

    async def _in_database(self, function: Callable[..., T], *args: object) -> T:
        """Run a call on the registry in a thread."""
        result = await anyio.to_thread.run_sync(
            partial(function, *args), limiter=self._database_threads, abandon_on_cancel=True
        )
        if self._registry_failing:
            self._registry_failing = False
            LOG.info("The registry answers again")
        return result

    def _registry_failed(self, error: Exception) -> None:
        """Leave the registry alone for a while; say so once."""
        self._registry_back_at = self._clock.boot() + _REGISTRY_RETRY_SECONDS
        if not self._registry_failing:
            self._registry_failing = True
            LOG.warning(
                "The registry cannot be reached: %s; trying again every %.0f s",
                type(error).__name__,
                _REGISTRY_RETRY_SECONDS,
            )

    def _put_back(
        self, taken: Sequence[Taken], lane: str | None, *, after_seconds: float = 0
    ) -> None:
        """Return images to the queue that nothing was done about."""
        for image in taken:
            self.queue.done(image.image_id)
            due = max(image.due, self._database_clock.now() + after_seconds)
            self.queue.add(image.image_id, due, owner=image.owner, lane=lane, source=image.source)


def _tell_change(lane: Lane, change: Change) -> None:
    """Log a change of state; what goes on in between is counted, not logged."""
    if change is Change.SLOWED:
        LOG.info(
            "Store %s is overloaded: slowed to %d at a time and %.1f a second",
            lane.name,
            lane.pace.concurrent,
            lane.pace.rate,
        )
    elif change is Change.RECOVERED:
        LOG.info("Store %s is at its full pace again", lane.name)
    elif change is Change.OPENED:
        LOG.warning(
            "Store %s does not work (%s): its images wait, and it is probed now and then",
            lane.name,
            lane.breaker.reason,
        )
    elif change is Change.CLOSED:
        LOG.info("Store %s works again", lane.name)
    else:
        LOG.error(
            "Store %s is paused: %s. Is it mounted, is the bucket the right one? Nothing more is"
            " deleted in it, and these images stay pending. Mend it and send the agents SIGHUP;"
            " if the data is really gone, add %s to [scrubber] acknowledged_stores first",
            lane.name,
            lane.breaker.reason,
            lane.name,
        )
