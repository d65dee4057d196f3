# SPDX-License-Identifier: Apache-2.0
"""Whether the broker can be reached."""

from __future__ import annotations

import logging
import time

import anyio
import oslo_messaging
import pytest
from anyio.abc import SocketStream
from oslo_config import cfg

from evscrub.domain.address import Address
from evscrub.intake import broker_probe
from evscrub.intake.broker_probe import BrokerWatch
from evscrub.telemetry.outage import Outage
from tests.servers import free_port


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("rabbit://u:p@one:1,u:p@two:2/vhost", [("one", 1), ("two", 2)]),
        ("rabbit://u:p@[::1]:7/", [("::1", 7)]),
        ("rabbit://u:p@one/", [("one", 5672)]),
        ("rabbit://", [("localhost", 5672)]),
        ("kafka://one:9093,two:9092/", [("one", 9093), ("two", 9092)]),
        ("kombu+memory://", []),
    ],
)
def test_brokers_of_a_url(url: str, hosts: list[tuple[str, int]]) -> None:
    conf = cfg.ConfigOpts()
    conf([], project="evscrub", default_config_files=[], default_config_dirs=[])
    oslo_messaging.get_notification_transport(conf, url="fake:")
    conf.set_override("transport_url", url, "oslo_messaging_notifications")
    assert broker_probe.brokers(conf) == hosts


def test_each_change_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_probe, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(broker_probe, "_CONNECT_SECONDS", 60.0)
    told: list[bool] = []
    changed = anyio.Event()

    def on_change(reachable: bool) -> None:
        told.append(reachable)
        changed.set()

    async def hang_up(stream: SocketStream) -> None:
        await stream.aclose()

    async def until_told() -> None:
        nonlocal changed
        with anyio.fail_after(20):
            await changed.wait()
        changed = anyio.Event()

    async def run() -> None:
        port = free_port()  # nobody else's between the two listeners
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
        brokers = [Address("127.0.0.1", 1), Address("127.0.0.1", port)]
        async with anyio.create_task_group() as tasks:
            watch = BrokerWatch(Outage("The bus", "", time.monotonic), time.monotonic, brokers)
            tasks.start_soon(watch.run, on_change)
            async with listener, anyio.create_task_group() as serving:
                serving.start_soon(listener.serve, hang_up)
                await anyio.sleep(0.1)
                serving.cancel_scope.cancel()
            await until_told()
            assert told == [False]
            async with (
                await anyio.create_tcp_listener(
                    local_host="127.0.0.1", local_port=port, reuse_port=True
                ) as again,
                anyio.create_task_group() as serving,
            ):
                serving.start_soon(again.serve, hang_up)
                await until_told()
                serving.cancel_scope.cancel()
            tasks.cancel_scope.cancel()
        assert told == [False, True]

    anyio.run(run)


@pytest.mark.parametrize(
    "wrong", [Address("127.0.0.1", 567_200), Address("broker\u20111", 5672), Address("a..b", 1)]
)
def test_an_address_that_cannot_be_is_no_broker(wrong: Address) -> None:
    async def run() -> None:
        assert not await broker_probe._is_any_reachable([wrong])
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            assert await broker_probe._is_any_reachable([wrong, Address("127.0.0.1", port)])

    anyio.run(run)


RABBIT = "oslo.messaging._drivers.impl_rabbit"
UNREACHABLE = (
    "[6f3a09d2-5a71-4f0e-9b4b-0c6a8a0c1a11] AMQP server on one:5672 is unreachable: [Errno 111]"
    " ECONNREFUSED. Trying again in 1 seconds."
)
BACK = "[6f3a09d2] Reconnected to AMQP server on one:5672 via [amqp] client with port 40000."


def record(name: str, level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, (), None)


class TestWhatTheClientLogs:
    def test_its_complaints_are_told_once(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        now = 100.0
        watch = BrokerWatch(Outage("The bus", "Sweeps go on", lambda: now), lambda: now, ())
        for _ in range(50):
            assert watch.is_told(record(RABBIT, logging.ERROR, UNREACHABLE))
            now += 1
        assert watch.is_told(record("amqp.connection", logging.WARNING, "closed"))
        assert watch.is_told(record(RABBIT, logging.INFO, BACK))
        away, back = (one.getMessage() for one in caplog.records)
        # Without the connection's id and the pause, which change.
        assert away == (
            "The bus is away: AMQP server on one:5672 is unreachable: [Errno 111] ECONNREFUSED."
            " Sweeps go on"
        )
        assert back == "The bus is back after 50 s"

    @pytest.mark.parametrize(
        ("name", "level", "text"),
        [
            (RABBIT, logging.WARNING, "Queue x could not be declared"),
            (RABBIT, logging.INFO, BACK),
            ("kombu.connection", logging.WARNING, "No hostname was supplied"),
            ("evscrub.intake.sweep", logging.ERROR, UNREACHABLE),
            ("amqpx", logging.ERROR, UNREACHABLE),
        ],
    )
    def test_all_else_is_left_to_it(self, name: str, level: int, text: str) -> None:
        watch = BrokerWatch(Outage("The bus", "", time.monotonic), time.monotonic, ())
        assert not watch.is_told(record(name, level, text))
        assert not watch.outage.is_on

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("Connection failed: refused", "refused (one:1, [::1]:2)"),
            ("AMQP server on one:1 is unreachable", "one:1 is unreachable"),
        ],
    )
    def test_the_brokers_are_named_once(
        self, text: str, said: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        outage = Outage("The bus", "Sweeps go on", time.monotonic)
        watch = BrokerWatch(outage, time.monotonic, [Address("one", 1), Address("::1", 2)])
        watch.is_told(record(RABBIT, logging.ERROR, text))
        assert f"{said}. Sweeps go on" in caplog.text

    def test_a_password_is_not_told(self, caplog: pytest.LogCaptureFixture) -> None:
        watch = BrokerWatch(Outage("The bus", "", time.monotonic), time.monotonic, ())
        watch.is_told(record(RABBIT, logging.ERROR, "amqp://glance:secret@one:5672/ is away"))
        assert "secret" not in caplog.text
        assert "one:5672" in caplog.text
