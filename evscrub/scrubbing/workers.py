# SPDX-License-Identifier: Apache-2.0
"""Workers: each deletes claimed images of a lane in a thread, one location after another.

The store's driver blocks, so that is where it runs. A delete that takes no time is cheaper than the
way to a thread and back; a worker therefore goes on with what is in the lane's backlog, and tells
what came of it when it has been at it for a while, or when something is not as it should be.
"""

from collections.abc import Callable, Mapping
from math import isfinite, isinf
from typing import NamedTuple

import anyio
from oslo_log import log as logging

from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.domain.proof import Proof, ProofResult
from evscrub.domain.verdict import GONE, UNPROVEN, Verdict, judge
from evscrub.scrubbing.job import Work
from evscrub.scrubbing.lane import RUN_SECONDS, Lane
from evscrub.scrubbing.lanes import Lanes
from evscrub.scrubbing.last_look import NO_LAST_LOOK, LastLook
from evscrub.scrubbing.lease_keeper import Leases
from evscrub.scrubbing.slots import Slot
from evscrub.scrubbing.witnesses import Witnesses
from evscrub.stores.backends import Stores

LOG = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What a store answered to a delete.

    :param ended_at: seconds since the epoch, by the database's clock.
    :param began: seconds since boot.
    :param ended: the same.
    """

    verdict: Verdict
    ended_at: float
    began: float
    ended: float


#: Images that a thread took, each with the answers for its locations.
Answers = list[tuple[Work, list[Answer]]]


class Workers:
    """What all workers share.

    :param concurrency: how many may delete at a time, at least 1.
    :param on_turn: called when one has got its turn at the rates.
    :param on_worked: takes each image that its lane is done with.
    """

    def __init__(
        self,
        stores: Stores,
        lanes: Lanes,
        leases: Leases,
        last_look: LastLook,
        witnesses: Witnesses,
        clock: Clock,
        database_clock: DatabaseClock,
        concurrency: int,
        on_turn: Callable[[], None],
        on_worked: Callable[[Work], None],
    ) -> None:
        self.stopping = False  #: nothing further is begun
        self._stores = stores
        self._lanes = lanes
        self._leases = leases
        self._last_look = last_look
        self._witnesses = witnesses
        self._clock = clock
        self._database_clock = database_clock
        self._threads = anyio.CapacityLimiter(concurrency)
        self._on_turn = on_turn
        self._on_worked = on_worked

    def change(self, concurrency: int) -> None:
        """Let another number of them delete at a time."""
        self._threads.total_tokens = concurrency

    async def work(self, lane: Lane, slot: Slot) -> None:
        """Delete an image's locations as far as they are in this lane, and then those of others."""
        work: Work | None = slot.work
        while work is not None:
            # The slot was first: a token is not spent on waiting for one.
            turns = await self._lanes.turns(lane)
            if isfinite(turns):
                self._on_turn()
            shut = self.stopping or lane.is_shut_for(work.owner, self._clock.boot())
            if shut or not await self._look_again(lane, work) or not self._leases.is_ours(work):
                self._on_worked(work)
                return
            work = await self._delete(lane, slot, turns)

    async def _look_again(self, lane: Lane, work: Work) -> bool:
        """Spare what others want by now; returns whether something is left to delete here."""
        shared = await self._last_look.renew(work)
        if shared is None:
            work.put_back((lane.name, NO_LAST_LOOK))
        elif shared:
            work.spare(shared, self._database_clock.now())
        return work.next_store == lane.name

    async def _delete(self, lane: Lane, slot: Slot, turns: float) -> Work | None:
        """Delete the next location, and those after it for a while, as long as all goes well.

        :param turns: no more than so many.
        :returns: an image that this lane is not done with.
        """
        answers: Answers = []
        first = slot.work
        defect: Exception | None = None
        try:
            await anyio.to_thread.run_sync(
                self._delete_some,
                lane,
                slot,
                turns,
                answers,
                limiter=self._threads,
                # Cancelled only when the process ends, drained or not; otherwise the slot is kept
                # for as long as the thread runs.
                abandon_on_cancel=True,
            )
        except Exception as error:  # noqa: BLE001 - it is told below, of the image that it met
            defect = error
            answers = answers or [(first, [])]  # no thread could be had
        proofs = await self._prove(lane, answers)
        unfinished = None
        for answered, given in answers:
            last = answered is answers[-1][0]
            self._take_in(lane, answered, given, proofs, defect if last else None)
            if answered.next_store == lane.name:
                unfinished = answered
            else:
                self._on_worked(answered)
        return unfinished

    async def _prove(self, lane: Lane, answers: Answers) -> dict[str, Proof]:
        """Ask what live images tell of the parts of a store that did not have some data."""
        if not lane.missing.limit:
            return {}
        missing: dict[str, float] = {}
        for work, given in answers:
            for (_, target), answer in zip(work.targets, given, strict=False):
                if answer.verdict.is_missing:
                    missing[target.endpoint] = answer.ended
        return {
            part: await self._witnesses.prove(lane.name, part, since)
            for part, since in missing.items()
        }

    def _take_in(
        self,
        lane: Lane,
        work: Work,
        answers: list[Answer],
        proofs: Mapping[str, Proof],
        defect: Exception | None,
    ) -> None:
        """Write down what came of an image; a defect belongs to it alone."""
        try:
            for answer in answers:
                row, target = work.targets.popleft()
                part = target.endpoint
                verdict = lane.believed(answer.verdict)
                if answer.began < lane.reset_at and lane.is_absence(answer.verdict):
                    verdict = UNPROVEN  # it was absent before an operator saw to the store
                    work.judged(row, lane.name, verdict, answer.ended_at)
                    continue
                if answer.verdict.is_missing:
                    proof = proofs.get(part, Proof(ProofResult.UNKNOWN))
                    verdict = lane.missing.judge(
                        proof, part, work.owner, work.image_id, self._clock.boot()
                    )
                work.judged(row, lane.name, verdict, answer.ended_at)
                self._lanes.answered(lane, work, verdict, part, answer.began)
        except Exception as error:  # noqa: BLE001 - told with those of the thread
            defect = error
        if defect is not None:
            LOG.error("Image %s cannot be worked on", work.image_id, exc_info=defect)
            work.give_up((lane.name, judge(defect, "")))

    def _delete_some(self, lane: Lane, slot: Slot, turns: float, answers: Answers) -> None:
        """Delete in a worker thread: first one image, then what is next in the lane's backlog.

        Nothing follows what is neither gone nor missing. One proof serves for all that is missing.

        :param answers: where each image is put before anything is done about it, and then what
            came of it; no answer at all where its lease has run out.
        """
        began = before = self._clock.boot()
        work: Work | None = slot.work
        while work is not None:
            given: list[Answer] = []
            answers.append((work, given))
            if work.begun_at is None:
                work.begun_at = self._database_clock.now()
            for target in work.targets_in(lane.name):
                # Either may have run out since the loop asked, if it did.
                if not self._leases.has_time(work) or not self._last_look.is_fresh(work):
                    return
                verdict = self._stores.delete(target)
                now = self._clock.boot()
                given.append(Answer(verdict, self._database_clock.now(), before, now))
                lane.took(now - before, now)
                before = now
                turns -= 1
                went_well = verdict == GONE or verdict.is_missing
                if not went_well or self._is_over(lane, turns, now - began):
                    return
            work = lane.go_on(slot)

    def _is_over(self, lane: Lane, turns: float, seconds: float) -> bool:
        """Whether a thread that did well for so long ends here."""
        slowed = isinf(turns) and lane.pace.rate > 0
        return seconds > RUN_SECONDS or turns < 1 or self.stopping or slowed or not lane.has_runs
