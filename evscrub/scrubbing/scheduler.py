# SPDX-License-Identifier: Apache-2.0
"""Decides which images to look at and to claim next, and to which lane a job goes."""

from collections.abc import Hashable, Iterator

from evscrub.flow_control.circuit_breaker import State
from evscrub.flow_control.owner_limit import OwnerLimit
from evscrub.queueing.delay_queue import DelayQueue, Taken
from evscrub.queueing.turns import OwnerKey, owner_key
from evscrub.scrubbing.claim_ahead import claim_limits, claim_size
from evscrub.scrubbing.claimer import UNKNOWN_LANE
from evscrub.scrubbing.claiming import Again
from evscrub.scrubbing.context import Context
from evscrub.scrubbing.job import Job
from evscrub.scrubbing.lane import Lane
from evscrub.scrubbing.lanes import Lanes

#: Maximum number of images in one look.
LOOK_SIZE = 500


class Scheduler:
    """Takes images out of the queue for lanes that need them, and assigns jobs to lanes."""

    def __init__(
        self, queue: DelayQueue, lanes: Lanes, owners: OwnerLimit, context: Context
    ) -> None:
        self.draining = False  #: whether the agent stops: jobs are not forwarded then
        self._queue = queue
        self._lanes = lanes
        self._owners = owners
        self._context = context

    def images_to_look_at(self) -> list[Taken]:
        """Take ready images whose store is not known, up to one batch."""
        return self._queue.take(UNKNOWN_LANE, LOOK_SIZE)

    def claims(self) -> Iterator[tuple[Lane, list[Taken]]]:
        """Take the ready images to claim, and yield them in batches with their lane."""
        if not self._context.may_begin:
            return
        now = self._context.clock.boot()
        settings = self._context.settings
        for store in {_store_of(name) for name in self._queue.lanes() if name != UNKNOWN_LANE}:
            lane = self._lanes.of(store)
            names = (lane.name, Again(lane.name))
            if lane.health.blamed is not None:
                but_theirs = {owner_key(owner): 0 for owner in lane.health.blamed}
                if any(self._queue.has_ready(name, but_theirs) for name in names):
                    self._lanes.make_way(lane)
            while size := claim_size(lane, now, settings.batch_size, settings.rate):
                ready = sum(map(self._queue.ready, names))
                if ready < size and lane.claiming.gather_seconds(now):
                    break
                taken = self._take(lane, size, now)
                if not taken:
                    break
                lane.claiming.begins(taken, now)
                yield lane, taken

    def lane_for(self, job: Job) -> Lane | None:
        """Return the lane of a job's next location; None if the job must be settled."""
        store = job.next_store
        if store is None or job.lease.is_lost or self.draining:
            return None
        lane = self._lanes.of(store)
        if lane.health.blamed not in {None, (job.owner,)}:
            self._lanes.make_way(lane)
        now = self._context.clock.boot()
        if not lane.takes(job.owner, now) or self._is_poor_probe(lane, job, now):
            return None
        return lane

    def pause_seconds(self) -> float:
        """Return the seconds until something can start without a wake-up."""
        pause = self._lanes.next_look()
        due = self._queue.next_advance()
        if due is not None:
            pause = min(pause, max(0.0, due - self._context.database_clock.now()))
        now = self._context.clock.boot()
        for lane in self._lanes:
            pause = min(pause, lane.claiming.gather_seconds(now) or pause)
        return pause

    def _take(self, lane: Lane, size: int, now: float) -> list[Taken]:
        """Take ready images of a lane, within the limits of their owners."""
        taken: list[Taken] = []
        order = lane.claiming.order(is_closed=lane.breaker.state is State.CLOSED)
        for name, probe_owners in order:
            if len(taken) < size:
                limits = self._limits(lane, now, probe_owners=probe_owners)
                for image in taken:
                    if image.owner in limits:
                        limits[image.owner] -= 1
                ready = self._queue.take(name, size - len(taken), limits)
                taken += [image for image in ready if self._is_its_turn(image, name)]
        return taken

    def _is_its_turn(self, image: Taken, queue_lane: Hashable) -> bool:
        """Return whether the rate of an image's owner allows it now; if not, queue it for later."""
        now = self._context.database_clock.now()
        if self._owners.lets_through(image.owner, now):
            return True
        due = self._owners.turn(image.image_id, image.owner, now)
        self._queue.done(image.image_id)
        self._queue.add(
            image.image_id, due, owner=image.owner, lane=queue_lane, source=image.source
        )
        self._context.wakeup.set()  # others may be ready behind it
        return False

    def _is_poor_probe(self, lane: Lane, job: Job, now: float) -> bool:
        """Return whether the job would probe its store although a better image can be claimed."""
        if job.first or lane.breaker.state is State.CLOSED:
            return False
        return self._queue.has_ready(lane.name, self._limits(lane, now, probe_owners=False))

    def _limits(self, lane: Lane, now: float, *, probe_owners: bool) -> dict[OwnerKey, int]:
        batch_size = self._context.settings.batch_size
        return claim_limits(lane, now, batch_size, probe_owners=probe_owners)


def _store_of(lane: Hashable) -> str:
    """Return the store of a queue lane."""
    return lane.store if isinstance(lane, Again) else str(lane)
