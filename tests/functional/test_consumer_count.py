# SPDX-License-Identifier: Apache-2.0
"""Count agents by what a real RabbitMQ tells of its consumers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from anyio.from_thread import start_blocking_portal
from kombu import Connection, Consumer, Queue
from oslo_config import cfg

from evscrub.config.options import listener_opts
from evscrub.domain.clock import Clock
from evscrub.intake import amqp, consumer_count
from evscrub.intake.consumer_count import ConsumerCount
from tests.functional.agents import wait_for
from tests.servers import Proxy, RabbitMQ, free_port

QUEUE = "evscrub.info"


class FastClock(Clock):
    """A host's clock that can be set forward."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0
        host = Clock()
        super().__init__(lambda: host.boot() + self.ahead_seconds)


@contextmanager
def counting(url: str, clock: Clock) -> Iterator[ConsumerCount]:
    """Yield the count that an agent keeps."""
    conf = cfg.ConfigOpts()
    conf([], project="evscrub", default_config_files=[], default_config_dirs=[])
    conf.register_opts(listener_opts, "listener")
    amqp.configured(conf)  # registers oslo.messaging's options
    conf.set_override("transport_url", url, "oslo_messaging_notifications")
    count = ConsumerCount(conf, clock)
    with start_blocking_portal() as portal:
        running = portal.start_task_soon(count.run)
        try:
            yield count
        finally:
            running.cancel()


@contextmanager
def agents(rabbitmq: RabbitMQ, number: int) -> Iterator[None]:
    """Consume a queue as so many agents do."""
    with Connection(rabbitmq.url.replace("rabbit:", "pyamqp:")) as connection:
        for _ in range(number):
            channel = connection.channel()
            queue = Queue(QUEUE, durable=False, channel=channel)
            Consumer(channel, [queue], on_message=lambda _: None).consume()
        yield


def delete_queue(rabbitmq: RabbitMQ) -> None:
    """Delete the queue with its consumers, as an operator may."""
    with Connection(rabbitmq.url.replace("rabbit:", "pyamqp:")) as connection:
        Queue(QUEUE, channel=connection.channel()).delete()


def test_agents_are_counted_as_they_come_and_go(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count is not known while the broker is away or the queue is missing."""
    monkeypatch.setattr(consumer_count, "INTERVAL_SECONDS", 0.02)
    clock = FastClock()
    with Proxy(rabbitmq.port) as proxy:
        other = f"guest:wrong@127.0.0.1:{rabbitmq.port}"
        url = rabbitmq.url.replace("//", f"//{other},").replace(
            f"guest:guest@127.0.0.1:{rabbitmq.port}", f"guest:guest@127.0.0.1:{proxy.port}"
        )
        with counting(url, clock) as count:
            with agents(rabbitmq, 1):
                wait_for("one agent", lambda: count.count == 1)
                with agents(rabbitmq, 2):
                    wait_for("three agents", lambda: count.count == 3)
                wait_for("one agent", lambda: count.count == 1)
                proxy.point(free_port())
                wait_for("no broker", lambda: _is_unknown_later(count, clock))
                proxy.point(rabbitmq.port)
                wait_for("the broker is back", lambda: count.count == 1)
                delete_queue(rabbitmq)
                wait_for("no queue", lambda: count.count is None)
            with agents(rabbitmq, 2):
                wait_for("two agents", lambda: count.count == 2)
            wait_for("no agents", lambda: count.count == 0)


def _is_unknown_later(count: ConsumerCount, clock: FastClock) -> bool:
    clock.ahead_seconds += consumer_count.VALID_SECONDS + 1
    return count.count is None
