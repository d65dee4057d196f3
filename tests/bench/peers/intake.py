# SPDX-License-Identifier: Apache-2.0
"""Takes so many notifications off the bus, in one of several ways.

Says "begin" with the first batch and "end" after the last, with how many came in between.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

import evscrub.cli  # noqa: F401 - chooses oslo.service's backend before anything imports it

# isort: split
import anyio
import oslo_messaging
from oslo_log import log
from oslo_messaging.notify.listener import BatchNotificationServer, NotificationServer

from evscrub.agent import Agent
from evscrub.config import loader
from evscrub.intake.listener import Dispatcher
from tests.bench.peers.saying import leave, limit, say


class Meter:
    """Counts messages; the first batch begins, and is not counted."""

    def __init__(self, messages: int) -> None:
        self.ended = threading.Event()
        self._messages = messages
        self._before = 0
        self._count = 0

    def took(self, messages: int) -> None:
        if not self._count:
            self._before = messages
            say("begin")
        self._count += messages
        if self._count >= self._messages and not self.ended.is_set():
            say("end", messages=self._count - self._before)
            self.ended.set()


class Noop:
    """A dispatcher that does nothing, for one message or a batch of them."""

    supported_priorities = ("info",)

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def dispatch(self, incoming: Any) -> Any:
        several = isinstance(incoming, list)
        self._meter.took(len(incoming) if several else 1)
        return set() if several else oslo_messaging.NotificationResult.HANDLED


class MeteredDispatcher(Dispatcher):
    """Evscrub's own, with a meter behind it."""

    meter: Meter

    def dispatch(self, incoming: Sequence[Any]) -> set[Any]:
        left = super().dispatch(incoming)
        self.meter.took(len(incoming))
        return left


def _run_noop(conf: Any, meter: Meter, *, batches: bool) -> None:
    options = conf.listener
    transport = oslo_messaging.get_notification_transport(conf)
    conf.set_default("rabbit_qos_prefetch_count", 5 * options.batch_size, "oslo_messaging_rabbit")
    targets = [oslo_messaging.Target(topic=topic, exchange="glance") for topic in options.topics]
    common = (transport, targets, Noop(meter), "threading")
    if batches:
        server = BatchNotificationServer(
            *common,
            allow_requeue=False,
            batch_size=options.batch_size,
            batch_timeout=options.batch_timeout,
        )
    else:
        server = NotificationServer(*common, allow_requeue=False)
    server.start()
    meter.ended.wait()


def _run_agent(agent: Agent, meter: Meter) -> None:
    dispatcher = MeteredDispatcher(agent.listener._deliver)
    dispatcher.meter = meter
    agent.listener.dispatcher = dispatcher

    def end() -> None:
        meter.ended.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.handle_signals)
            await agent.run()
            tasks.cancel_scope.cancel()

    threading.Thread(target=end, daemon=True).start()
    anyio.run(run)
    if len(agent.queue) == 0:
        raise AssertionError("nothing waits: the events did not get into the queue")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--kind", choices=("evscrub", "batches", "single"), required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--limit", type=int, default=600, help="seconds until it ends itself")
    arguments = parser.parse_args()
    limit(arguments.limit)
    conf, own = loader.load([arguments.config_file])
    log.setup(own, "evscrub")
    meter = Meter(arguments.messages)
    if arguments.kind == "evscrub":
        _run_agent(Agent(conf, own), meter)
    else:
        _run_noop(conf, meter, batches=arguments.kind == "batches")
    leave()


if __name__ == "__main__":
    main()
