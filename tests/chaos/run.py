# SPDX-License-Identifier: Apache-2.0
"""A run: the plan is carried out under watch, then everything heals, then all is judged."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from evscrub.registry.database import UNAVAILABLE
from tests.chaos.group_rate import GroupRate, judge
from tests.chaos.plan import Plan, make_plan
from tests.chaos.site import SCRUBBER, Site
from tests.chaos.watch import Watch
from tests.chaos.world import World

#: How long it may take until everything that is due is scrubbed, when nothing is wrong any more.
_QUIET_SECONDS = 180.0
_SOON_SECONDS = 25.0


@dataclass
class Report:
    """What became of a run."""

    seed: int
    database: str
    faults: Counter[str] = field(default_factory=Counter)
    images: dict[str, int] = field(default_factory=dict)
    deletes: int = 0
    excused: int = 0
    memory: dict[str, int] = field(default_factory=dict)
    quiet_after: float = 0.0
    rate: GroupRate | None = None
    violations: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed} on {self.database}: "
            + ("NOTHING VIOLATED" if not self.violations else "VIOLATED"),
            f"  faults: {sum(self.faults.values())}: "
            + ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items())),
            f"  images: {sum(self.images.values())}: "
            + ", ".join(f"{end} {count}" for end, count in sorted(self.images.items())),
            f"  {self.deletes} deletes by agents, {self.excused} again after an excusing fault",
            f"  quiet {self.quiet_after:.0f} s after the last fault",
            "  memory at most: "
            + ", ".join(f"{name} {size >> 20} MiB" for name, size in sorted(self.memory.items())),
        ]
        if self.rate is not None:
            lines.append(f"  {self.rate}")
        if self.violations:
            lines += ["history:", *self.history, "violations:", *self.violations]
        return "\n".join(lines)


def run(seed: int, database: str, seconds: float, directory: Path, group: str = "") -> Report:
    """Run one seed.

    :param database: a key of `tests.chaos.site.DATABASES`.
    :param seconds: how long things happen; starting and healing come on top.
    :param directory: an empty folder.
    :param group: a key of `tests.servers.COORDINATORS` for agents that keep one rate together.
    """
    plan = make_plan(seed, seconds, group=bool(group))
    report = Report(seed, database)
    with Site(database, directory, group) as site:
        began = time.time()
        world = World(site, plan, began + seconds + 120)
        watch = Watch(site, world.stories)
        watch.begin()
        watch.faults.begin(began, plan.faults)
        world.live(began, lambda: time.time() < began + seconds + 90 and not watch.violations)
        watch.faults.end()
        watch.faults.note("all is well from here on")
        report.quiet_after = _wait_quiet(site, watch, world)
        watch.end()
        if not watch.violations or report.quiet_after:
            watch.audit(final=True)
            watch.judge_doubles()
            watch.judge_sleepers()
            if group:
                _judge_rate(site, watch, report)
            report.images = watch.judge_end()
        _fill(report, site, watch, world, plan)
    return report


def _judge_rate(site: Site, watch: Watch, report: Report) -> None:
    """Judge the rate that the agents kept together."""
    requests = [each for each in site.objects.requests if each.who != SCRUBBER]
    if not any(each.deleted for each in requests):
        watch.violated("", "no agent deleted anything")
        return
    report.rate = judge(requests, [span for agent in site.agents for span in agent.absences])
    if report.rate.is_exceeded:
        watch.violated("", f"{report.rate}")


def _wait_quiet(site: Site, watch: Watch, world: World) -> float:
    """Wait until nothing is left to scrub; returns how long that took."""
    began, reloaded = time.time(), 0.0
    while True:
        since = time.time() - began
        if watch.violations:
            return 0.0
        try:
            left = [i for i in watch.outstanding() if not world.stories[i].abandoned]
        except UNAVAILABLE:
            left = ["?"]
        if not left:
            return since
        if since > _QUIET_SECONDS:
            for image_id in left[:3]:
                watch.violated(image_id, f"due and not scrubbed after {since:.0f} s of rest")
            return 0.0
        if since > reloaded + _SOON_SECONDS:
            # What an operator does about a fuse: look, and say that the data is really gone.
            reloaded = since
            for agent in site.agents:
                agent.options["scrubber"]["acknowledged_stores"] = "objects,files"
            site.reload_agents()
        time.sleep(0.5)


def _fill(report: Report, site: Site, watch: Watch, world: World, plan: Plan) -> None:
    report.faults = Counter(watch.faults.made)
    report.deletes, report.excused = watch.deletes, watch.twice_excused
    report.memory = dict(watch.memory)
    report.history = [f"  {at:.2f} {text}" for at, text in watch.faults.history]
    for image_id, text in watch.violations[:5]:
        report.violations.append(f"{image_id or 'all'}: {text}")
        if image_id:
            report.violations += _about(site, world, image_id)


def _about(site: Site, world: World, image_id: str) -> list[str]:
    """Return all that is known of an image."""
    story = world.stories[image_id]
    lines = [f"{story.life}", *(f"{deed}" for deed in story.deeds)]
    lines += [
        f"{r.at:.2f}..{r.ended:.2f} {r.who} {r.method} {r.status}"
        for r in site.objects.requests
        if r.key.endswith(image_id)
    ]
    try:
        lines += [f"{row}" for row in site.rows.rows("images", image_id)]
        lines += [
            f"{ {k: v for k, v in row.items() if k != 'value'} }"
            for row in site.rows.rows("image_locations", image_id)
        ]
    except UNAVAILABLE:
        lines.append("the registry does not answer")
    for agent in site.agents:
        lines += [f"{agent.name}: {line}" for line in agent.log.splitlines() if image_id in line][
            :20
        ]
    return [f"    {line}" for line in lines]
