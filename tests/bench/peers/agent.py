# SPDX-License-Identifier: Apache-2.0
"""Evscrub's agent, whole, until it has scrubbed so many images or gets SIGTERM.

Says "begin" when it begins to run and "end" when the last of the images is settled in the registry,
with how late they were.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import evscrub.cli  # noqa: F401 - chooses oslo.service's backend before anything imports it

# isort: split
import anyio
from oslo_log import log

from evscrub.agent import Agent
from evscrub.commands.agent import collect_seldom
from evscrub.config import loader
from evscrub.domain import verdict
from evscrub.telemetry.statistics import Scrubbed
from tests.bench.kit.results import percentile
from tests.bench.peers.saying import leave, limit, say, wait_for_go
from tests.bench.peers.slow_store import SlowStore

_POLL_SECONDS = 0.2


class Count:
    """Counts scrubbed images and stops the agent after the last.

    :param images: 0 for any number.
    """

    def __init__(self, images: int) -> None:
        self.late: list[float] = []
        self.waits = False  #: whether more has to happen than so many images
        self.agent: Agent
        self._images = images

    def __call__(self, image: Scrubbed) -> None:
        if not self.late:
            say("first")
        self.late.append(image.late_seconds)
        if len(self.late) == self._images // 2:
            say("half")
        if len(self.late) == self._images and not self.waits:
            self.say_end()
            self.agent.stop()

    async def wait_for_parked(self, images: int) -> None:
        """Say when so many images are parked, and do not end before."""
        self.waits = True
        while self.agent.scrubber.failed_images < images:  # noqa: ASYNC110 - no event
            await anyio.sleep(_POLL_SECONDS)
        say("parked")
        while len(self.late) < self._images:  # noqa: ASYNC110 - no event
            await anyio.sleep(_POLL_SECONDS)
        self.say_end()
        self.agent.stop()

    def say_end(self) -> None:
        late = self.late or [0.0]
        say(
            "end",
            images=len(self.late),
            late_p50=percentile(late, 0.5),
            late_p99=percentile(late, 0.99),
            late_max=max(late),
        )


async def _run(count: Count, arguments: argparse.Namespace) -> None:
    agent = count.agent
    if arguments.no_sweep:
        agent.sweep.run = anyio.sleep_forever  # type: ignore[method-assign] # a stand-in
    say("begin")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.handle_signals)
        if arguments.parked:
            tasks.start_soon(count.wait_for_parked, arguments.parked)
        await agent.run()
        tasks.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--no-sweep", action="store_true", help="only what the bus brings")
    parser.add_argument("--delete-seconds", type=float, help="a store stand-in that sleeps")
    parser.add_argument("--parked", type=int, default=0, help='say "parked" at so many of these')
    parser.add_argument("--times", type=Path, help="write there when the stand-in was called")
    parser.add_argument("--late", type=Path, help="write there how late each image was")
    parser.add_argument("--wait", action="store_true", help="until the benchmark says go")
    parser.add_argument("--limit", type=int, default=900, help="seconds until it ends itself")
    arguments = parser.parse_args()
    limit(arguments.limit)
    conf, own = loader.load([arguments.config_file])
    log.setup(own, "evscrub")
    count = Count(arguments.images)
    agent = count.agent = Agent(conf, own, count)
    store = SlowStore(arguments.delete_seconds or 0.0)
    if arguments.delete_seconds is not None:
        agent.stores.delete = store.standing_in(verdict.GONE)  # type: ignore[method-assign] # a stand-in
    collect_seldom()
    if arguments.wait:
        wait_for_go()
    anyio.run(_run, count, arguments)
    if arguments.times:
        arguments.times.write_text(json.dumps(sorted(store.began)))
    if arguments.late:
        arguments.late.write_text(json.dumps(count.late))
    say("left", images=len(count.late), busy=store.busy_seconds if store.ended else 0.0)
    leave()


if __name__ == "__main__":
    main()
