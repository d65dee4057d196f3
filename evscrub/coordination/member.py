# SPDX-License-Identifier: Apache-2.0
"""Keep an agent's membership of its group, and its share of the limits.

tooz blocks, and a coordinator that does not answer blocks it for long. All of it therefore runs in
a daemon thread, which neither the start nor a stop of the agent waits for.
"""

import math
import os
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import anyio
from anyio.lowlevel import EventLoopToken
from oslo_config import cfg
from oslo_log import log as logging

from evscrub.coordination.capabilities import Published, shares
from evscrub.coordination.coordinator import Coordinator, CoordinatorAwayError, Seen
from evscrub.coordination.shares import ShareKeeper
from evscrub.coordination.statistics import GroupStatistics, MemberSeen
from evscrub.domain.clock import Clock
from evscrub.flow_control.share import WHOLE, ShareGate
from evscrub.telemetry.outage import Outage

LOG = logging.getLogger(__name__)

_PREFIX = "evscrub."
#: memcached drops members up to this much early.
_EARLY_SECONDS = 1.0
#: Agents count the consumers of the bus every 5 s, and join a bus that was away within 30 s.
_COUNT_SECONDS = 40.0
#: How long members that left are shown.
_SHOW_GONE_SECONDS = 600.0
_STOP_SECONDS = 1.0
#: Most shares published in one attempt: agents that raise theirs at the same time give way.
_PUBLISHES = 4


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Settings of the group.

    :param url: ``backend_url`` of tooz; it may hold a password.
    :param group: name of the group.
    :param heartbeat_seconds: time between two heartbeats.
    :param membership_seconds: time without a heartbeat after which a membership expires.
    :param expected: number of agents that are expected to run; 0 if unknown.
    """

    url: str
    group: str
    heartbeat_seconds: float
    membership_seconds: int
    expected: int

    @property
    def request_seconds(self) -> int:
        """Longest time of a request to the coordinator; an attempt begins no request after it."""
        return max(1, min(2, self.membership_seconds // 4))

    @property
    def valid_seconds(self) -> float:
        """Time after an attempt for which its share may be used, longer than the next attempt."""
        attempt = 2 * self.request_seconds + 2 * self.heartbeat_seconds + 1
        return min(attempt, self.membership_seconds - _EARLY_SECONDS)

    @property
    def settle_seconds(self) -> float:
        """Time after which an agent that has not joined a coordinator that is back uses nothing."""
        return self.valid_seconds + 2 * self.request_seconds


def group_settings(conf: cfg.ConfigOpts) -> GroupSettings | None:
    """Return the settings of the group; None if agents do not coordinate.

    :raises ValueError: heartbeats would be too far apart for the membership.
    """
    options = conf.coordination
    if not options.backend_url:
        return None
    settings = GroupSettings(
        options.backend_url,
        _PREFIX + options.name,
        options.heartbeat_interval,
        options.membership_timeout,
        options.expected_members,
    )
    if 3 * settings.heartbeat_seconds > settings.membership_seconds:
        raise ValueError(
            "[coordination] membership_timeout must be at least three times heartbeat_interval, or"
            " one lost heartbeat ends a membership"
        )
    return settings


class GroupMember:
    """An agent's membership of its group.

    :param gate: tells the parts of the agent whether the share may be used.
    :param consumers: returns how many agents consume from the bus, this one among them; None if
        that is not known.
    :param use: called in the event loop when the gate's share has changed, to apply it; returns
        whether the agent keeps within it already, and is called again if not.
    :raises ValueError: the coordinator cannot be used as configured.
    """

    def __init__(
        self,
        settings: GroupSettings,
        clock: Clock,
        gate: ShareGate,
        consumers: Callable[[], int | None],
        use: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._gate = gate
        self._consumers = consumers
        self._use = use
        self._coordinator = Coordinator(
            settings.url,
            settings.group,
            f"{socket.gethostname()[:64]}:{os.getpid()}:{secrets.token_hex(4)}",
            settings.membership_seconds,
            settings.request_seconds,
            clock.boot,
        )
        self._now = 0.0  # seconds since the start, suspensions included
        self._moment = clock.moment()
        self._keeper = ShareKeeper(
            settings.settle_seconds, _COUNT_SECONDS, settings.expected, self._now
        )
        self._outage = Outage(
            "The coordinator",
            "Until it is back, this agent keeps the share that it has, or waits for one",
            clock.boot,
            remind_seconds=math.inf,
        )
        self._contact_at: float | None = None
        self._contact = 0.0
        self._seen: dict[str, MemberSeen] = {}
        self._told: Fraction | None = None  # the share that was applied last
        self._in_force = True
        self._stop = threading.Event()
        self._token: EventLoopToken
        # Nothing is begun before the group has told the share.
        gate.part = Fraction(0)

    def statistics(self) -> GroupStatistics:
        """Return what is known of the group. Thread-safe."""
        keeper = self._keeper
        share = keeper.in_use if self._gate.is_open else Fraction(0)
        members = sorted(
            self._seen.values(),
            key=lambda one: (not one.is_self, not one.is_present, one.member_id),
        )
        return GroupStatistics(
            self._settings.group, keeper.state, share, tuple(members), self._contact_at
        )

    async def run(self) -> None:
        """Keep the membership until cancelled, then leave the group."""
        self._token = anyio.lowlevel.current_token()
        thread = threading.Thread(target=self._keep, name="coordination", daemon=True)
        thread.start()
        try:
            await anyio.sleep_forever()
        finally:
            self._stop.set()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(thread.join, _STOP_SECONDS)

    def _keep(self) -> None:
        while not self._stop.is_set():
            try:
                self._beat()
            except Exception:
                if not self._stop.is_set():  # else the event loop may be gone
                    LOG.exception("Cannot follow the group %s", self._settings.group)
            self._stop.wait(self._settings.heartbeat_seconds)
        self._coordinator.leave()

    def _beat(self) -> None:
        """Make one attempt to tell the coordinator that this agent lives, and follow its answer."""
        self._advance()
        try:
            self._follow_group()
        except CoordinatorAwayError as error:
            self._outage.away(f"it does not answer ({error})")
            self._lose_contact()
        else:
            self._outage.back()
        has_expired = bool(self._gate.part) and not self._gate.is_open
        self._gate.renew(self._moment, self._settings.valid_seconds)
        self._apply(again=has_expired)

    def _advance(self) -> None:
        """Read the clock. Shares are decided and renewed by the time that it was read last."""
        now = self._clock.moment()
        self._now += self._clock.since(self._moment)
        self._moment = now

    def _lose_contact(self) -> None:
        """Follow from an attempt that failed, which may have taken long."""
        self._advance()
        self._keeper.away(self._consumers(), self._now)
        if self._now - self._contact > self._settings.membership_seconds:
            self._coordinator.reconnect()

    def _follow_group(self) -> None:
        published = Published(self._keeper.in_use, self._consumers())
        seen = self._coordinator.beat(published)
        if seen.joined:
            self._keeper.published(published, joined=True)
            LOG.info("Joined the group %s as %s", self._settings.group, self._coordinator.member_id)
        for _ in range(_PUBLISHES):
            self._decide(seen)
            self._apply()  # less is used before it is published
            new = self._decide(seen)
            if new is None:
                break
            seen = self._coordinator.publish(new)
            self._keeper.published(new)
        self._contact, self._contact_at = self._now, self._clock.wall()

    def _decide(self, seen: Seen) -> Published | None:
        """Update the share; return what to publish, see :meth:`ShareKeeper.see`."""
        others = [each or Published(WHOLE) for each in seen.others.values()]
        published = self._keeper.see(
            others, self._consumers(), self._now, is_in_force=self._in_force
        )
        self._note(seen)
        return published

    def _apply(self, *, again: bool = False) -> None:
        """Let the agent use its share.

        :param again: whether to tell it even if it has not changed.
        """
        share = self._keeper.in_use
        changed = share != self._told
        if self._stop.is_set() or not (again or changed or not self._in_force):
            return
        if changed and share:
            LOG.info("Using %s of the limits that the group %s shares", share, self._settings.group)
        elif changed:
            LOG.info(
                "Waiting for a share of the limits of the group %s: nothing is scrubbed until then",
                self._settings.group,
            )
        self._in_force = anyio.from_thread.run_sync(self._change, share, token=self._token)
        self._told = share

    def _change(self, share: Fraction) -> bool:
        self._gate.change(share)
        return self._use()

    def _note(self, seen: Seen) -> None:
        """Keep what was seen of the members, for :meth:`statistics`."""
        wall = self._clock.wall()
        own = self._coordinator.member_id
        present = {**shares(seen.others), own: self._keeper.in_use}
        noted = {
            name: replace(old, is_present=False)
            for name, old in self._seen.items()
            if name not in present
            and not old.is_self
            and wall - old.last_seen_at < _SHOW_GONE_SECONDS
        }
        for name, share in present.items():
            noted[name] = MemberSeen(name, share, wall, is_present=True, is_self=name == own)
        self._seen = noted
