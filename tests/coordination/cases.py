# SPDX-License-Identifier: Apache-2.0
"""What befalls a group of agents. Each function is a case, by its name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from tests.coordination.run import Run

#: How long an agent may take from its start until it has its share: it starts, joins, waits until
#: the others have lowered theirs, and is measured.
_JOIN_SECONDS = 60.0
_AGENTS = 3
_LEAD_SECONDS = 5.0
_AWAY_SECONDS = 60.0
_STALL_SECONDS = 20.0
_FROZEN_SECONDS = 40.0

Case = Callable[[Run], None]


def steady(run: Run) -> None:
    """Three agents, and nothing happens."""
    run.begin(_AGENTS, run.seconds + 60)
    run.keep_full(run.seconds)


def killed(run: Run) -> None:
    """One of three is killed: the others take up its share within the membership's timeout."""
    agents = run.begin(_AGENTS, run.seconds + 90)
    run.keep_full(_LEAD_SECONDS)
    run.kill(agents[0])
    run.wait_full("its share is taken up", _taken_up(run))
    run.keep_full(run.seconds)


def stopped(run: Run) -> None:
    """One of three is stopped by SIGTERM: the others take up its share at once."""
    agents = run.begin(_AGENTS, run.seconds + 90)
    run.keep_full(_LEAD_SECONDS)
    run.stop(agents[0])
    run.wait_full("its share is taken up", 10.0)
    run.keep_full(run.seconds)


def added(run: Run) -> None:
    """A fourth is added."""
    run.begin(_AGENTS, run.seconds + 90)
    run.keep_full(_LEAD_SECONDS)
    _join(run, 1)
    run.keep_full(run.seconds)


def two_added(run: Run) -> None:
    """Two are added at once."""
    run.begin(_AGENTS, run.seconds + 90)
    run.keep_full(_LEAD_SECONDS)
    _join(run, 2)
    run.keep_full(run.seconds)


def frozen(run: Run) -> None:
    """One of three is stopped for longer than its membership lasts, and wakes."""
    agents = run.begin(_AGENTS, run.seconds + _FROZEN_SECONDS + 90)
    run.keep_full(_LEAD_SECONDS)
    run.freeze(agents[0], _FROZEN_SECONDS)
    run.wait_full("all scrub again", _JOIN_SECONDS)
    run.keep_full(run.seconds)


def coordinator_stopped(run: Run) -> None:
    """The coordinator is away for a minute: the agents keep their shares."""
    run.begin(_AGENTS, run.seconds + _AWAY_SECONDS + 90)
    run.keep_full(_LEAD_SECONDS)
    run.coordinator.stop()
    run.note("coordinator stopped")
    run.keep_full(_AWAY_SECONDS)
    run.coordinator.start()
    run.note("coordinator started")
    run.wait(_JOIN_SECONDS)
    run.keep_full(run.seconds)


def coordinator_stalled(run: Run) -> None:
    """The coordinator answers nothing for a while."""
    run.begin(_AGENTS, run.seconds + _STALL_SECONDS + 90)
    run.keep_full(_LEAD_SECONDS)
    stalled = threading.Thread(target=run.coordinator.stall, args=(_STALL_SECONDS,))
    stalled.start()
    run.note("coordinator stalled")
    run.keep_full(_STALL_SECONDS)
    stalled.join()
    run.note("coordinator goes on")
    run.wait(_JOIN_SECONDS)
    run.keep_full(run.seconds)


def coordinator_emptied(run: Run) -> None:
    """The coordinator is killed and comes back without what it knew."""
    run.begin(_AGENTS, run.seconds + 90)
    run.keep_full(_LEAD_SECONDS)
    run.coordinator.restart_empty()
    run.note("coordinator restarted empty")
    run.wait(_JOIN_SECONDS)
    run.keep_full(run.seconds)


def started_without(run: Run) -> None:
    """A fourth is started while the coordinator is away, and the coordinator comes back."""
    run.begin(_AGENTS, run.seconds + 2 * _JOIN_SECONDS + 120)
    run.keep_full(_LEAD_SECONDS)
    run.coordinator.stop()
    run.note("coordinator stopped")
    try:
        _join(run, 1)
        run.keep_full(run.seconds / 2)
    finally:
        run.coordinator.start()
    run.note("coordinator started")
    run.wait(_JOIN_SECONDS)
    run.keep_full(run.seconds / 2)


def clocks_apart(run: Run) -> None:
    """One agent's clock is an hour ahead, another's an hour behind; one of them is killed."""
    run.begin(1, run.seconds + 150)
    ahead, _ = run.add(skew=3600.0), run.add(skew=-3600.0)
    _wait_scrubbing(run, 60.0)
    run.wait_full("all scrub", _JOIN_SECONDS)
    run.keep_full(run.seconds / 2)
    run.kill(ahead)
    run.wait_full("its share is taken up", _taken_up(run))
    run.keep_full(run.seconds / 2)


def slow(run: Run) -> None:
    """The rate is such that each share is below one a second; a fourth is added."""
    run.begin(_AGENTS, run.seconds + 150)
    run.keep_full(run.seconds)
    _join(run, 1)
    run.keep_full(run.seconds)


def _join(run: Run, agents: int) -> None:
    """Start further agents at once and wait until they have their shares."""
    for _ in range(agents):
        run.add()
    _wait_scrubbing(run, _JOIN_SECONDS + 3 * len(run.site.agents) / run.rate)
    run.wait_full("all scrub at the full rate", _JOIN_SECONDS)


def _wait_scrubbing(run: Run, most_seconds: float) -> None:
    names = {agent.name for agent in run.site.agents if agent.runs}
    run.wait_for("every agent scrubs", lambda: names <= set(run.counts()), most_seconds)


def _taken_up(run: Run) -> float:
    """Return how long the others may take to have what a dead agent had.

    Besides its membership's timeout, they notice at their next heartbeat, and publish before they
    use what they take; a request that was under way is the first to be missed.
    """
    return run.membership_timeout + 4.0


#: What the cases need beside a group: `stoppable`, a coordinator that is a server; `hosts`, one
#: that can be used from several hosts, each with its own clock.
CASES: Mapping[str, Case] = {
    case.__name__: case
    for case in (
        steady,
        killed,
        stopped,
        added,
        two_added,
        frozen,
        coordinator_stopped,
        coordinator_stalled,
        coordinator_emptied,
        started_without,
        clocks_apart,
        slow,
    )
}
#: Those that need a coordinator that is a server.
NEED_SERVER = frozenset({"coordinator_stopped", "coordinator_stalled", "started_without"})
NEED_SERVER |= {"coordinator_emptied"}
#: Those that need hosts of their own, which files on one host do not.
NEED_HOSTS = frozenset({"clocks_apart"})
#: Deletes per second and at once, for cases that have their own.
LIMITS: Mapping[str, tuple[float, float]] = {"slow": (1.5, 1.0)}
