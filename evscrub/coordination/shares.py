# SPDX-License-Identifier: Apache-2.0
"""Decide which part of the limits an agent uses, so that the group never exceeds the whole. Pure.

Each member publishes a part that is at least the part that it uses. To use less, it does so first
and publishes it then. To use more, it publishes first, reads the others once more, and uses only
what they leave. Of two members that raise their parts at the same time, at least one reads what the
other published, so the parts in use never sum up to more than 1.

The coordinator may lose all members at once, for instance when it restarts without its data. The
agents that run come back within a settling time, and nobody raises its part before it was a member
for that long without interruption.

A member may also be the only one to lose the coordinator. It keeps 1/*n* at most, with *n* the
consumers of the bus. The members publish how many consumers they count, and share what those
consumers leave that are no members. A member that does not consume, such as a single sweep, learns
it from the others.
"""

from collections.abc import Iterable
from fractions import Fraction

from evscrub.coordination.capabilities import Published
from evscrub.coordination.statistics import GroupState

_NONE = Fraction(0)
_ALL = Fraction(1)
#: Largest denominator of what the others leave, so that what is published can be read.
_MOST_PARTS = 10**6


class ShareKeeper:
    """Decides the share of one agent.

    :param settle_seconds: time within which all agents that run join a coordinator that came back.
    :param count_seconds: time within which every agent counts the consumers of the bus; it begins
        again when their number changes.
    :param expected: number of agents that the operator expects; 0 if unknown.
    :param now: seconds since boot.
    """

    def __init__(
        self, settle_seconds: float, count_seconds: float, expected: int, now: float
    ) -> None:
        self.state = GroupState.JOINING
        self.in_use = _NONE  #: part of the limits that this agent uses
        self._settle_seconds = settle_seconds
        self._count_seconds = count_seconds
        self._expected = expected
        self._published: Published | None = Published(_NONE)
        self._members = 0  # at the last contact
        self._steady_since: float | None = None  # start of the uninterrupted membership
        self._attempted_at = now
        self._known = 0  # agents by the last count of the consumers
        self._counted_since: float | None = None

    def published(self, published: Published, *, joined: bool = False) -> None:
        """Record what the agent published.

        :param joined: whether it did so by joining the group, for the first time or again.
        """
        self._published = published
        if joined:
            self._steady_since = None

    def see(
        self,
        others: Iterable[Published],
        consumers: int | None,
        now: float,
        *,
        is_in_force: bool = True,
    ) -> Published | None:
        """Update the share from what the other members published.

        :param others: what each other member published.
        :param consumers: consumers of the bus, this agent among them; None if it does not consume
            or does not know.
        :param is_in_force: whether the agent keeps within :attr:`in_use` already.
        :returns: what to publish, after which the others must be read again; None if nothing.
        """
        self._begin(now)
        self.state = GroupState.MEMBER
        self._counted_since = None
        seen = list(others)
        published = self._published.share if self._published else _NONE
        room = max(_NONE, _ALL - sum((each.share for each in seen), start=_NONE))
        if room.denominator > _MOST_PARTS:
            room = Fraction(int(room * _MOST_PARTS), _MOST_PARTS)
        self._members = len(seen) + 1
        target = _target(self._members, [consumers, *(each.consumers for each in seen)])
        if self._steady_since is None:
            self._steady_since = now
            # The others may have taken this share up.
            self.in_use = min(self.in_use, room)
        self.in_use = min(self.in_use, target)
        if now - self._steady_since >= self._settle_seconds:
            wanted = min(target, room)
            self.in_use = max(self.in_use, min(wanted, published))
        else:
            wanted = self.in_use
        if wanted > self.in_use:
            share = wanted
        else:
            share = self.in_use if is_in_force else max(self.in_use, published)
        new = Published(share, consumers)
        return None if new == self._published else new

    def away(self, consumers: int | None, now: float) -> None:
        """Update the share while the coordinator cannot be reached.

        The last share is kept, and lowered if the bus shows more agents. An agent that never
        reached the coordinator takes a part once all others have had the time to count it among the
        consumers of the bus and to lower their parts.

        :param consumers: see :meth:`see`.
        """
        self._begin(now)
        self._steady_since = self._published = None  # it may have been lost, or published
        if self._members:
            self.state = GroupState.AWAY
        known = max(consumers or 0, self._expected)
        if known != self._known:
            self._known, self._counted_since = known, None
        if known and self._counted_since is None:
            self._counted_since = now
        count = max(self._members, known)
        if not count:
            return
        part = Fraction(1, count)
        if self._members or self.in_use:
            self.in_use = min(self.in_use, part)
        elif now - (self._counted_since or now) >= self._count_seconds:
            self.in_use = part

    def _begin(self, now: float) -> None:
        """Begin an attempt. Forget the share if the last one is too long ago.

        A process that was frozen cannot tell whether the others have taken its share up.
        """
        if now - self._attempted_at > self._settle_seconds:
            self._members, self.in_use, self._steady_since = 0, _NONE, None
            self._counted_since = None
        self._attempted_at = now


def _target(members: int, counts: Iterable[int | None]) -> Fraction:
    """Return the part of each member: consumers that are no members have 1/*n* each.

    :param counts: how many consumers each member counts.
    """
    known = [count for count in counts if count is not None]
    if not known:
        return Fraction(1, members)
    return Fraction(len(known), max(len(known), *known) * members)
