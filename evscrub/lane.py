# SPDX-License-Identifier: Apache-2.0
"""A lane: what one store may be asked for at a time.

Pure: it counts and decides, it never waits.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from evscrub.clock import Moment
from evscrub.delay_queue import Source
from evscrub.registry.claims import Claim, Settlement
from evscrub.rules import LocationRow
from evscrub.stores import Target
from evscrub.verdict import Verdict

#: How much work is claimed ahead of the workers, so that they do not wait for the database.
_AHEAD_SECONDS = 0.25
_MEASURE_SECONDS = 1.0


@dataclass(slots=True)
class Work:
    """A claimed image on its way through the lanes.

    :param targets: the locations still to delete, each with its store.
    :param asked: when the claim was asked for; its lease is no older.
    :param due: when the image fell due, seconds since the epoch.
    :param trouble: the last failure, with the store it came from.
    :param lost: the lease ran out or was taken over: nothing more may be deleted.
    """

    claim: Claim
    lease: datetime
    asked: Moment
    due: float
    source: Source
    targets: deque[tuple[LocationRow, Target]] = field(default_factory=deque)
    gone: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    trouble: tuple[str, Verdict] | None = None
    ended_at: float = 0.0
    lost: bool = False

    @property
    def image_id(self) -> str:
        return self.claim.image.id

    def settlement(self) -> Settlement:
        """How this work ends: what was not deleted is left, whether it was tried or not."""
        return Settlement(
            self.image_id,
            self.claim.kind,
            self.lease,
            self.gone,
            [*self.left, *(row.id for row, _ in self.targets)],
        )


class Lane:
    """Concurrency and backlog of one store.

    :param name: the store.
    :param limit: images of this store in work at once, at least 1.
    """

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.running = 0
        self.claiming = False
        self.backlog: deque[Work] = deque()
        self._finished = 0
        self._measured_at: float | None = None
        self._per_second = 0.0

    def claim_size(self, batch_size: int, rate: float) -> int:
        """How many images to claim now; 0 while there is enough claimed to go on with.

        :param batch_size: the most in one transaction.
        :param rate: deletes a second that the limits allow, 0 for no limit.
        """
        ahead = max(self.limit, self._per_second * _AHEAD_SECONDS)
        if rate:
            # What waits for its turn at the rate is better left unclaimed, for other agents too.
            ahead = min(ahead, max(1.0, rate))
        free = max(0, self.limit - self.running)
        claimed = len(self.backlog)
        wanted = int(min(batch_size, max(free, ahead)))
        if rate and claimed + self.running >= ahead:
            return 0
        return wanted - claimed if claimed * 2 < wanted else 0

    def can_begin(self) -> bool:
        """Whether the next claimed image may begin."""
        return bool(self.backlog) and self.running < self.limit

    def finished(self, now: float) -> None:
        """Count an image that left the lane, for its speed."""
        self._finished += 1
        if self._measured_at is None:
            self._measured_at = now
        elif now - self._measured_at >= _MEASURE_SECONDS:
            self._per_second = self._finished / (now - self._measured_at)
            self._finished, self._measured_at = 0, now
