# SPDX-License-Identifier: Apache-2.0
"""One case under way: agents come and go while the store counts, and then it is judged."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.coordination.site import GroupAgent, Site
from tests.functional.store_servers import Request
from tests.rates import Window, busiest, count_between, longest_way, most_within, reached
from tests.servers import CoordinatorServer

#: Deletes that come in later than they were sent, by a busy machine, come in together with others.
_WINDOW_SECONDS = 5.0
#: No machine is as slow as that: an agent was frozen on the way.
_FROZEN_SECONDS = 5.0


@dataclass(frozen=True)
class Outcome:
    """What a case found.

    :param rate: deletes per second over the whole of the time that was to be at the full rate.
    :param above: by how much the busiest window of any length is above ``burst + rate * t``.
    :param tolerance: by how much it may be.
    :param second: the most deletes in a second.
    :param events: what was done and what came of it, in order.
    :param violations: what must not be.
    """

    case: str
    agents: int
    asked: float
    rate: float
    above: float
    tolerance: float
    second: int
    load: float
    events: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


class Run:
    """A case under way, on a site without agents.

    :param coordinator: the server that the agents' group is kept in, if the case may stop it.
    :param seconds: how long the agents are to keep the full rate.
    :param membership_timeout: seconds until a dead agent's membership expires.
    :param slack_seconds: how much longer one delete may take from its turn to the server than
        another, besides what was measured of that.
    :param full: which part of the rate counts as the full rate: on a busy machine an agent is late
        for some of its turns.
    """

    def __init__(
        self,
        case: str,
        site: Site,
        coordinator: CoordinatorServer | None,
        *,
        seconds: float,
        membership_timeout: float,
        slack_seconds: float,
        full: float = 0.95,
    ) -> None:
        self.site = site
        self.seconds = seconds
        self.membership_timeout = membership_timeout
        self._case = case
        self._coordinator = coordinator
        self._slack_seconds = slack_seconds
        self._full_part = full
        self._events: list[str] = []
        self._violations: list[str] = []
        self._began = time.monotonic()
        self._load = os.getloadavg()[0]
        self._most_agents = 0
        self._ended: set[str] = set()
        self._full: list[tuple[float, float]] = []

    @property
    def coordinator(self) -> CoordinatorServer:
        """The server that the agents' group is kept in.

        :raises RuntimeError: there is none that can be stopped.
        """
        if self._coordinator is None:
            raise RuntimeError("the group is kept in files: nothing can be stopped")
        return self._coordinator

    @property
    def rate(self) -> float:
        """What the agents are asked to keep to together."""
        return self.site.limits.rate

    # -- what happens

    def begin(self, agents: int, seconds: float) -> list[GroupAgent]:
        """Start agents at once and wait until they keep the full rate.

        :param seconds: how long the case is going to be, for the number of images.
        """
        self.site.add_images(int(self.rate * seconds * 1.3) + 50)
        self._began = time.monotonic()
        started = [self.add() for _ in range(agents)]
        for agent in started:
            agent.wait_ready(bus=self.site.has_bus)
        self.wait_full("all agents scrub", 120.0)
        return started

    def add(self, *, skew: float = 0.0) -> GroupAgent:
        """Start a further agent and wait for nothing."""
        agent = self.site.new_agent(skew=skew)
        agent.launch()
        self.note(f"{agent.name} started" + (f", its clock {skew:+.0f} s off" if skew else ""))
        self._most_agents = max(self._most_agents, len(self.site.agents))
        return agent

    def kill(self, agent: GroupAgent) -> None:
        """Kill an agent."""
        self._ended.add(agent.name)
        agent.kill()
        self.note(f"{agent.name} killed")

    def stop(self, agent: GroupAgent) -> None:
        """Send an agent SIGTERM and wait until it has ended."""
        self._ended.add(agent.name)
        began = time.monotonic()
        code = agent.stop()
        self.note(f"{agent.name} stopped, in {time.monotonic() - began:.1f} s")
        if code:
            self._violations.append(f"{agent.name} exited with {code}")

    def freeze(self, agent: GroupAgent, seconds: float) -> None:
        """Stop an agent's process for some seconds."""
        agent.signal(signal.SIGSTOP)
        self.note(f"{agent.name} frozen")
        began = time.monotonic()
        self.wait(seconds)
        agent.signal(signal.SIGCONT)
        rate = count_between(self._times(), began, time.monotonic()) / seconds
        self.note(f"{agent.name} woken; {rate:.1f} deletes a second meanwhile")

    def wait(self, seconds: float) -> None:
        """Let the agents scrub for some seconds."""
        time.sleep(seconds)

    def note(self, text: str) -> None:
        """Write down what happens."""
        self._events.append(f"{time.monotonic() - self._began:.1f} s {text}")

    def keep_full(self, seconds: float) -> None:
        """Let the agents scrub for some seconds, during which they are to keep the full rate."""
        began = time.monotonic()
        self.wait(seconds)
        self._full.append((began, time.monotonic()))

    def wait_full(self, what: str, most_seconds: float) -> None:
        """Wait until the agents keep the full rate, and note how long that took.

        :param what: what they do then, for people.
        :param most_seconds: how long it may take.
        """
        began = time.monotonic()
        window = max(_WINDOW_SECONDS, 8 / self.rate)
        while time.monotonic() < began + most_seconds + 2 * window:
            times = self._times()
            at = reached(times, self._full_part * self.rate, began, time.monotonic(), window)
            if at is not None:
                took = at - began
                self.note(f"{what}: after {took:.1f} s")
                if took > most_seconds:
                    self._violations.append(f"{what}: only after {took:.1f} s")
                return
            time.sleep(0.5)
        self.note(f"{what}: not within {most_seconds:.0f} s")
        self._violations.append(f"{what}: not within {most_seconds:.0f} s")

    def wait_for(self, what: str, true: Callable[[], bool], most_seconds: float) -> None:
        """Wait until a condition holds, and note how long that took."""
        began = time.monotonic()
        while not true():
            if time.monotonic() > began + most_seconds:
                self._violations.append(f"{what}: not within {most_seconds:.0f} s")
                break
            time.sleep(0.1)
        self.note(f"{what}: after {time.monotonic() - began:.1f} s")

    def violated(self, text: str) -> None:
        """Note that something is as it must not be."""
        self._violations.append(text)

    def wait_exceeded(self, most_seconds: float) -> None:
        """Wait until more deletes came than a group may make."""

        def exceeded() -> bool:
            window, allowed, _ = self._judge(self.site.requests())
            return window.above > allowed

        self.wait_for("more deletes than a group may make", exceeded, most_seconds)

    # -- what came of it

    def counts(self, since: float = 0.0) -> Counter[str]:
        """Return how many deletes came from each agent, since a moment of the monotonic clock."""
        return Counter(who for at, who in self.site.deletes() if at >= since)

    def end(self) -> Outcome:
        """End the agents and judge what was counted."""
        if not self.site.pending():
            self._violations.append("all images were scrubbed before the end: nothing is proven")
        for agent in self.site.agents:
            if not agent.runs and agent.name not in self._ended:
                self._violations.append(f"{agent.name} ended by itself, log: {agent.log_path}")
        requests = self.site.requests()
        self.site.end_agents()
        times = _deletes(requests)
        rate, burst = self.rate, self.site.limits.burst
        window, tolerance, way = self._judge(requests)
        second = most_within(times, 1.0)
        self._events.append(
            f"busiest window: {window.until - window.since:.2f} s from"
            f" {window.since - self._began:.1f} s, while deletes were up to"
            f" {way:.2f} s on their way"
        )
        if window.above > tolerance:
            self._violations.append(
                f"a window has {window.above:.1f} deletes above burst + rate * t,"
                f" {tolerance:.1f} allowed"
            )
        if second > rate + burst + tolerance:
            self._violations.append(f"{second} deletes in a second")
        return Outcome(
            self._case,
            self._most_agents,
            rate,
            self._full_rate(times),
            window.above,
            tolerance,
            second,
            max(self._load, os.getloadavg()[0]),
            self._events,
            self._violations,
        )

    def _judge(self, requests: Sequence[Request]) -> tuple[Window, float, float]:
        """Return the busiest window, how far above it may be, and a delete's longest way."""
        times, burst = _deletes(requests), self.site.limits.burst
        way = longest_way(
            [(each.at, each.method, (each.who, each.path)) for each in requests], _FROZEN_SECONDS
        )
        slack = self._slack_seconds + way
        tolerance = max(0.0, self._most_agents - burst) + self.rate * slack
        window = busiest(times, self.rate, burst) if times else Window(0, 0, 0)
        return window, tolerance, way

    def _full_rate(self, times: list[float]) -> float:
        """Return the rate while it was to be full, and judge it."""
        seconds = sum(until - since for since, until in self._full)
        if not seconds:
            return 0.0
        count = sum(count_between(times, since, until) for since, until in self._full)
        # A count of so few cannot be nearer than one for each agent.
        allowed = max(0.02 * self.rate * seconds, self._most_agents)
        if abs(count - self.rate * seconds) > allowed:
            self._violations.append(
                f"{count} deletes in {seconds:.0f} s, {self.rate * seconds:.0f} were asked for"
            )
        return count / seconds

    def _times(self) -> list[float]:
        return [at for at, _ in self.site.deletes()]


def _deletes(requests: Sequence[Request]) -> list[float]:
    return [each.at for each in requests if each.method == "DELETE"]
