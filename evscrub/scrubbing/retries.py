# SPDX-License-Identifier: Apache-2.0
"""Make failed images due before the time of their next try.

A retry changes due times in the queue and nothing else: claims, holds and limits are checked as for
any due image. The number of tries stays, so that an image that fails again waits as long as after
one more failure, and a parked one stays parked.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import anyio.lowlevel

from evscrub.domain.verdict import UNUSABLE
from evscrub.flow_control.circuit_breaker import State
from evscrub.queueing.delay_queue import Added, DelayQueue, Source
from evscrub.scrubbing.claimer import UNKNOWN_LANE
from evscrub.scrubbing.context import Context
from evscrub.scrubbing.lanes import Lanes

#: Number of images between two checkpoints.
_PIECE = 1000
_NOT_FAILED = "has not failed: it waits until it is due, or for its turn"


@dataclass(slots=True)
class Retried:
    """The result of a retry.

    :param due: number of failed images that are due now.
    :param waiting: how many of them wait for their store, whose breaker lets nothing through.
    :param in_work: number of images that are being looked up, claimed or deleted already.
    :param not_retried: why known images are not retried, by id.
    :param unknown: ids of images that are not known here.
    :param stores: stores of the images that are due.
    """

    due: int = 0
    waiting: int = 0
    in_work: int = 0
    not_retried: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    stores: set[str] = field(default_factory=set)


class Retries:
    """Makes failed images due, and lets open breakers through one probe."""

    def __init__(self, queue: DelayQueue, lanes: Lanes, context: Context) -> None:
        self._queue = queue
        self._lanes = lanes
        self._context = context

    async def images(self, image_ids: Sequence[str]) -> Retried:
        """Retry images that are named.

        :param image_ids: ids in any case; the result names those that are not retried as here.
        """
        ids = await self._spelled_as_known(image_ids)
        retried, shut = Retried(), self._shut()
        for given in image_ids:
            image_id = ids.get(given.lower())
            if image_id is None:
                retried.unknown.append(given)
            elif not self._retry(image_id, retried, shut):
                retried.not_retried[given] = self._why_not(image_id)
        self._context.wakeup.set()
        return retried

    async def stores(self, names: Collection[str] | None) -> Retried:
        """Retry all failed images of some stores, and probe those whose breaker is open.

        A store that is paused stays paused, because only an operator's SIGHUP resumes it.

        :param names: the stores; None for all failed images.
        """
        now = self._context.clock.boot()
        for lane in self._lanes:
            if names is None or lane.name in names:
                lane.health.end_pauses(now)
        retried, shut = Retried(), self._shut()
        async for image_id in self._failed():
            trouble = self._context.record.troubles.get(image_id)
            if trouble is not None and (names is None or trouble.store in names):
                self._retry(image_id, retried, shut)
        self._context.wakeup.set()
        return retried

    async def unusable(self, stores: Collection[str]) -> int:
        """Retry the images that were parked because these stores could not be used.

        :returns: the number of images.
        """
        retried, shut = Retried(), self._shut()
        async for image_id in self._failed():
            trouble = self._context.record.troubles.get(image_id)
            if (
                trouble is not None
                and trouble.store in stores
                and trouble.verdict.reason in UNUSABLE
            ):
                self._retry(image_id, retried, shut)
        self._context.wakeup.set()
        return retried.due

    def _failed(self) -> AsyncIterator[str]:
        """Yield the failed images, those that failed last first: the queue finds them fastest."""
        return _patiently(list(reversed(self._context.record.troubles)))

    def _retry(self, image_id: str, retried: Retried, shut: Collection[str]) -> bool:
        """Make an image due if it has failed; return whether it is due or in work.

        :param shut: the stores whose breaker lets nothing through.
        """
        if self._queue.is_taken(image_id):
            retried.in_work += 1
            return True
        trouble = self._context.record.troubles.get(image_id)
        if trouble is None:
            return False
        # An image that the full queue dropped is looked up again.
        now = self._context.database_clock.now()
        added = self._queue.add(
            image_id, now, owner=trouble.owner, lane=UNKNOWN_LANE, source=Source.SWEEP
        )
        if added is Added.DROPPED:
            return False
        retried.due += 1
        retried.waiting += trouble.store in shut
        retried.stores.add(trouble.store)
        return True

    def _why_not(self, image_id: str) -> str:
        record = self._context.record
        if image_id in record.damaged:
            return f"is damaged and left alone: {record.damaged[image_id]}"
        if image_id in record.troubles:
            return "does not fit in the queue, which is full of images that have been due longer"
        return _NOT_FAILED

    def _shut(self) -> set[str]:
        now = self._context.clock.boot()
        stopped = {State.OPEN, State.FORCED_OPEN}
        return {lane.name for lane in self._lanes if lane.breaker.state_at(now) in stopped}

    async def _spelled_as_known(self, given: Sequence[str]) -> Mapping[str, str]:
        """Return the ids as Glance spells them, by the id in lower case, of those that are known.

        Nearly all are in lower case, or as given. The others are looked for among the failed and
        damaged images, one by one.
        """
        found = {}
        for image_id in given:
            for spelled in (image_id, image_id.lower(), image_id.upper()):
                if self._is_known(spelled):
                    found[image_id.lower()] = spelled
                    break
        missing = {image_id.lower() for image_id in given} - found.keys()
        if missing:
            record = self._context.record
            async for name in _patiently([*record.troubles, *record.damaged]):
                if name.lower() in missing:
                    found[name.lower()] = name
        return found

    def _is_known(self, image_id: str) -> bool:
        record = self._context.record
        return image_id in record.troubles or image_id in record.damaged or image_id in self._queue


async def _patiently(names: Sequence[str]) -> AsyncIterator[str]:
    """Yield the names, with checkpoints between: a million images may have failed."""
    for number, name in enumerate(names, 1):
        yield name
        if not number % _PIECE:
            await anyio.lowlevel.checkpoint()
