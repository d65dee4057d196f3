# SPDX-License-Identifier: Apache-2.0
"""How many agents consume from the bus, as its broker tells."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from amqp import exceptions as amqp_errors
from oslo_config import cfg

from evscrub.config.options import listener_opts
from evscrub.domain.clock import Clock
from evscrub.intake import amqp, consumer_count
from evscrub.intake.amqp import Broker
from evscrub.intake.consumer_count import ConsumerCount
from tests.servers.base import wait_until

PASSWORD = "topsecret"


def configuration(url: str, **listener: object) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    conf([], project="evscrub", default_config_files=[], default_config_dirs=[])
    conf.register_opts(listener_opts, "listener")
    amqp.configured(conf)  # registers oslo.messaging's options
    conf.set_override("transport_url", url, "oslo_messaging_notifications")
    for name, value in listener.items():
        conf.set_override(name, value, "listener")
    return conf


class FakeBrokers:
    """Takes the place of connections to RabbitMQ.

    :ivar consumers: number of consumers of each queue, or the error that asking for it raises.
    :ivar away: ports of brokers that refuse connections.
    :ivar connections: port of the broker of each connection made.
    """

    def __init__(self) -> None:
        self.consumers: dict[str, int | Exception] = {}
        self.away: set[int] = set()
        self.connections: list[int] = []
        self.readings = 0

    @contextmanager
    def connection(self, broker: Broker) -> Iterator[Any]:
        self.connections.append(broker.host.port)
        self._port = broker.host.port
        if broker.host.port in self.away:
            raise ConnectionRefusedError
        yield self

    def channel(self) -> FakeBrokers:
        self.readings += 1
        return self

    def close(self) -> None:
        pass

    def queue_declare(self, name: str, *, passive: bool) -> SimpleNamespace:
        assert passive
        found = self.consumers.get(name, amqp_errors.NotFound(f"no queue {name}"))
        if self._port in self.away:  # asked last: a test sets it before the consumers
            raise ConnectionResetError
        if isinstance(found, Exception):
            raise found
        return SimpleNamespace(consumer_count=found)


class World:
    """Fake brokers and a boot clock."""

    def __init__(self) -> None:
        self.brokers = FakeBrokers()
        self.seconds = 100.0

    def count(self, url: str = "rabbit://u:topsecret@one:1/", **listener: Any) -> ConsumerCount:
        return ConsumerCount(configuration(url, **listener), Clock(lambda: self.seconds))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(amqp, "connection", made.brokers.connection)
    monkeypatch.setattr(consumer_count, "INTERVAL_SECONDS", 0.005)
    return made


@asynccontextmanager
async def running(count: ConsumerCount) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count.run)
        yield
        tasks.cancel_scope.cancel()


async def until(true: Callable[[], bool]) -> None:
    await anyio.to_thread.run_sync(wait_until, true, 20.0, "what the thread does")


def shows(count: ConsumerCount, expected: int) -> bool:
    return count.count == expected


async def read_again(world: World) -> None:
    """Wait for a reading that began after this call."""
    readings = world.brokers.readings
    await until(lambda: world.brokers.readings >= readings + 2)


@pytest.mark.parametrize(
    ("listener", "consumers", "agents"),
    [
        ({}, {"evscrub.info": 3}, 3),
        ({}, {"evscrub.info": 0}, 0),
        # Another service reads the first topic too.
        ({"topics": ["a", "b"]}, {"a.info": 4, "b.info": 3}, 3),
        # An agent has a consumer for each topic, all of them on the pool's queue.
        ({"topics": ["a", "b"], "pool": "mine"}, {"mine": 6, "a.info": 1}, 3),
        # One of four is just starting.
        ({"topics": ["a", "b"], "pool": "mine"}, {"mine": 7}, 4),
        ({"topics": ["a", "a"]}, {"a.info": 6}, 3),
    ],
)
def test_consumers_of_the_listener_s_queues_are_counted(
    world: World, listener: dict[str, Any], consumers: dict[str, int | Exception], agents: int
) -> None:
    count = world.count(**listener)
    world.brokers.consumers = consumers
    assert count.count is None  # before the first reading

    async def run() -> None:
        async with running(count):
            await until(lambda: count.count is not None)
            assert count.count == agents

    anyio.run(run)


def test_agents_come_and_go_on_one_connection(world: World) -> None:
    count = world.count()

    async def run() -> None:
        async with running(count):
            for consumers in (1, 3, 2):
                world.brokers.consumers["evscrub.info"] = consumers
                await until(partial(shows, count, consumers))

    anyio.run(run)
    assert len(world.brokers.connections) == 1


def test_a_reading_is_used_for_twenty_seconds(world: World) -> None:
    """A process that was frozen does not take what it read before for the present."""
    count = world.count()
    world.brokers.consumers["evscrub.info"] = 2

    async def run() -> None:
        async with running(count):
            await until(lambda: count.count == 2)
            world.brokers.away.add(1)
            await until(lambda: len(world.brokers.connections) > 2)
            world.seconds += 20.0
            assert count.count == 2
            world.seconds += 0.1
            assert count.count is None
            world.brokers.away.clear()
            await until(lambda: count.count == 2)

    anyio.run(run)


def test_a_reading_is_as_old_as_its_question(world: World) -> None:
    """What a broker answers after a while was true at some time since it was asked."""
    count = world.count()
    declare = world.brokers.queue_declare

    def slowly(name: str, *, passive: bool) -> SimpleNamespace:
        world.seconds += 30.0
        return declare(name, passive=passive)

    world.brokers.queue_declare = slowly  # type: ignore[method-assign] # it takes long
    world.brokers.consumers["evscrub.info"] = 2

    async def run() -> None:
        async with running(count):
            await read_again(world)
            assert count.count is None

    anyio.run(run)


def test_the_next_broker_is_asked_if_one_fails(world: World) -> None:
    count = world.count("rabbit://u:topsecret@one:1,u:topsecret@two:2,u:topsecret@three:3/")
    world.brokers.consumers["evscrub.info"] = 2
    world.brokers.away = {1}

    async def run() -> None:
        async with running(count):
            await until(lambda: count.count == 2)
            assert world.brokers.connections == [1, 2]
            world.brokers.away = {1, 2}
            world.brokers.consumers["evscrub.info"] = 5
            await until(lambda: count.count == 5)
            assert world.brokers.connections == [1, 2, 3]
            # After the last one, the first is tried again.
            world.brokers.away = {2, 3}
            world.brokers.consumers["evscrub.info"] = 6
            await until(lambda: count.count == 6)
            assert world.brokers.connections == [1, 2, 3, 1]

    anyio.run(run)


@pytest.mark.parametrize(
    ("error", "warnings"),
    [
        (amqp_errors.NotFound("NOT_FOUND - no queue 'evscrub.info' in vhost '/'"), 0),
        (amqp_errors.AccessRefused("ACCESS_REFUSED - access to queue 'evscrub.info' refused"), 1),
        (amqp_errors.ResourceLocked("RESOURCE_LOCKED - cannot obtain exclusive access"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_nothing_is_known_of_a_queue_that_is_missing_or_refused(
    world: World, caplog: pytest.LogCaptureFixture, error: Exception, warnings: int
) -> None:
    """The connection is kept, and the count is back with the queue."""
    count = world.count()
    world.brokers.consumers["evscrub.info"] = 2

    async def run() -> None:
        async with running(count):
            await until(lambda: count.count == 2)
            world.brokers.consumers["evscrub.info"] = error
            await until(lambda: count.count is None)
            await read_again(world)
            world.brokers.consumers["evscrub.info"] = 1
            await until(lambda: count.count == 1)

    anyio.run(run)
    assert world.brokers.connections == [1]
    told = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert len(told) == warnings
    assert all("evscrub.info" in text and "permissions" in text for text in told)


@pytest.mark.parametrize("error", [RuntimeError, UnicodeError, KeyError, amqp_errors.AMQPError])
def test_nothing_that_a_client_raises_ends_the_counting(
    world: World, error: type[Exception]
) -> None:
    count = world.count()
    world.brokers.consumers["evscrub.info"] = error()

    async def run() -> None:
        async with running(count):
            await until(lambda: len(world.brokers.connections) > 2)
            assert count.count is None
            world.brokers.consumers["evscrub.info"] = 1
            await until(lambda: count.count == 1)

    anyio.run(run)


@pytest.mark.parametrize("url", ["kombu+memory://", "fake://", f"nosuch://u:{PASSWORD}@host/"])
def test_another_bus_does_not_tell(url: str) -> None:
    """Nor is a thread started for it; the listener refuses a URL that cannot be used."""
    count = ConsumerCount(configuration(url), Clock())
    before = set(threading.enumerate())

    async def run() -> None:
        with anyio.fail_after(20):
            await count.run()

    anyio.run(run)
    # Threads of other tests end meanwhile.
    assert "consumer count" not in {one.name for one in {*threading.enumerate()} - before}
    assert count.count is None


@pytest.mark.costly
def test_neither_start_nor_stop_waits_for_a_broker(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that accepts connections and says nothing blocks its client for seconds."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(amqp, "_SECONDS", 60.0)

    async def run() -> float:
        accepted = anyio.Event()

        async def serve(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                accepted.set()
                await anyio.sleep_forever()

        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        url = f"rabbit://u:{PASSWORD}@127.0.0.1:1,u:{PASSWORD}@127.0.0.1:{port}/"
        async with listener, anyio.create_task_group() as serving:
            serving.start_soon(listener.serve, serve)
            began = time.monotonic()
            count = ConsumerCount(configuration(url), Clock())
            assert time.monotonic() - began < 30
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(count.run)
                with anyio.fail_after(20):
                    await accepted.wait()
                assert count.count is None
                began = time.monotonic()
                tasks.cancel_scope.cancel()
            taken = time.monotonic() - began
            serving.cancel_scope.cancel()
        return taken

    assert anyio.run(run) < 30
    assert "127.0.0.1:1:" in caplog.text
    assert PASSWORD not in caplog.text
